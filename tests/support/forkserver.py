"""The server that processes are forked from: it has imported PyTorch, so that they start in no time.

pytest's workers are such processes, and so are the Pythons that their programs start (`warm_python`). This module
imports little, for a process that only asks the server for another.
"""

import multiprocessing
import os
import runpy
import sys
from multiprocessing import forkserver, resource_tracker

ADDRESS = "PROLIP_TESTS_FORKSERVER"
"""The variable that names the server's socket, for those who did not start it."""
PRELOADED = [
    "torch._dynamo",
    "torch._dynamo.backends.debugging",  # and the next are what a first compilation imports, in four seconds
    "torch._inductor.compile_fx",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    *("fastapi", "httpx", "uvicorn"),  # what Gradio imports; it reads variables when it is imported itself
    "prolip.embeddings.embed",
    "prolip.train.loop",
    "tests.support.frozen",  # the last
]
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(PRELOADED)


def share():
    """Starts the server for this process and for all that it starts, unless one is there.

    What forked processes print goes nowhere, unless a test redirects it.
    """
    server = forkserver._forkserver
    if ADDRESS not in os.environ and not hasattr(server, "_forkserver_authkey"):  # of Python 3.14: each has its own
        ours = [os.dup(number) for number in (1, 2)]
        with open(os.devnull, "wb") as nowhere:
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
        try:
            server.ensure_running()
        finally:
            for number, file in zip((1, 2), ours, strict=True):
                os.dup2(file, number)
                os.close(file)
        os.environ[ADDRESS] = server._forkserver_address


def use_shared():
    """Has this process ask the server that its environment names, and start none."""
    if ADDRESS in os.environ:
        server = forkserver._forkserver
        server._forkserver_address = os.environ[ADDRESS]
        server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)  # the server lives as long as who started it
        server.ensure_running = resource_tracker.ensure_running


use_shared()


def run_python(command):
    """Runs in this process what Python would with such words: `-m MODULE`, `-c CODE` or a script, and its words."""
    kind = command[0] if command[0] in {"-m", "-c"} else ""
    sys.argv = list(command[1:] if kind == "-m" else command)
    if kind == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
