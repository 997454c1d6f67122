"""`python -m prolip.demo.rank PARENT WORDS`: a training process of the demo, which ends when the demo does."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Let this process get SIGTERM when its parent ends (or has ended): then it saves and ends. Linux only."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))  # before PyTorch is imported, which takes seconds
    from prolip.train.loop import main

    sys.exit(main(sys.argv[2:]))
