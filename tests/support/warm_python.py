"""A Python for programs that start their own, such as torchrun: it stands for a process that is forked from the server.

Signals go on to that process, and it ends when what stands for it is killed.
"""

import os
import shlex
import signal
import sys
from pathlib import Path

from tests.support.forked import Forked
from tests.support.forkserver import ADDRESS, share

ROOT = Path(__file__).resolve().parents[2]
_START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.support.warm_python import main; main()"


def warm_python(folder, name="python", *words):
    """Writes the program, which puts some words before its own; its path.

    Args:
        folder: where to.
        name: the program's.
        words: `-m MODULE`, to stand for another program.
    """
    share()
    program = folder / name
    start = ["-c", _START] if ADDRESS in os.environ else []  # else there is no server for all, and this is any Python
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *start, *words])} "$@"\n')
    program.chmod(0o755)
    return program


def main():
    words = [word for word in sys.argv[1:] if word != "-u"]
    ours = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    with Forked([sys.executable, *words], **ours, tied=True) as process:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda received, _: process.send_signal(received))
        code = process.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
