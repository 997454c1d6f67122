"""Python programs in processes forked from the server of `forkserver`: they start in no time.

For tests that do not ask how a program starts or how its interpreter ends: these processes do neither. Variables that
libraries read when they are imported (HF_HOME) come too late.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.forkserver import FORKSERVER, run_python, use_shared


class Forked:
    """What tests use of `subprocess.Popen`; the command is that of a Python: `-m MODULE`, `-c CODE` or a script."""

    def __init__(
        self, command, *, stdin=None, stdout=None, stderr=None, cwd=None, env=None, start_new_session=False, tied=False
    ):
        """Starts it, as `subprocess.Popen` would. What is tied ends when this process does, however that is."""
        assert command[0] == sys.executable
        assert stderr != subprocess.PIPE, "a file can be read when it has ended"
        theirs = {}
        self.stdin = None
        self.stdout = None
        if stdin == subprocess.PIPE:
            theirs[0], written = FORKSERVER.Pipe(duplex=False)
            self.stdin = os.fdopen(os.dup(written.fileno()), "wb", 0)
            written.close()
        if stdout == subprocess.PIPE:
            read, theirs[1] = FORKSERVER.Pipe(duplex=False)
            self.stdout = os.fdopen(os.dup(read.fileno()), "rb")
            read.close()
        for number, file in enumerate((stdin, stdout, stderr)):
            if file is not None and not isinstance(file, int):
                theirs[number] = Connection(os.dup(file.fileno()))
        arguments = (
            list(command[1:]),
            dict(env or os.environ),
            str(cwd or Path.cwd()),
            theirs,
            start_new_session,
            tied,
        )
        self._process = FORKSERVER.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        for connection in theirs.values():
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Kills it, if it still lives."""
        self.kill()
        self.wait()
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self):
        assert self._process.pid is not None
        return self._process.pid

    def poll(self):
        """The exit code; None of a process that lives."""
        return self._process.exitcode

    def wait(self, timeout=None):
        """The exit code, when it has ended.

        Raises:
            subprocess.TimeoutExpired: it still lives after so many seconds.
        """
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number):
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(command, *, cwd, timeout=200):
    """Runs a program to its end, as `subprocess.run` does."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with Forked(command, stdout=out, stderr=err, cwd=cwd) as process:
            code = process.wait(timeout)
        told = []
        for file in (out, err):
            file.seek(0)
            told.append(file.read())
    return subprocess.CompletedProcess(command, code, *told)


def _run(command, environment, folder, files, session, tied):
    if tied:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    if session:
        os.setsid()
    # It may start processes, and in the usual way, as if it had not been forked itself.
    multiprocessing.current_process()._config["daemon"] = False
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(environment)
    use_shared()
    os.chdir(folder)
    for number, connection in files.items():
        os.dup2(connection.fileno(), number)
        connection.close()
    if 0 in files:
        sys.stdin = os.fdopen(0, closefd=False)
    import torch  # here, because a program that only starts such processes needs no PyTorch

    torch.set_num_threads(1)
    try:
        run_python(command)
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()


def _end_with_parent():
    parent = multiprocessing.parent_process()
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
