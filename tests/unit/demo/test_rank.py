"""A training process of the demo ends with the demo's own process."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this signal")

RANK = """
import sys, time
from prolip.demo.rank import end_with
end_with(int(sys.argv[1]))
print("trains", flush=True)
time.sleep(20)
print("goes on")
"""
DEMO = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())]).wait()
"""


def test_a_killed_demo_leaves_no_training_process():
    with subprocess.Popen([sys.executable, "-c", DEMO, RANK], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout.readline() == "trains\n"
        demo.kill()
        assert demo.stdout.read() == "", "what it has printed when it ends"


def test_a_process_whose_demo_has_ended_already_ends_at_once():
    done = subprocess.run([sys.executable, "-c", RANK, str(2**22)], check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")
