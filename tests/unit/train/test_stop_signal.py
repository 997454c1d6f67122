"""Signals that stop a run, and the one that nohup hides from it."""

import itertools
import os
import signal
import threading
import time

import pytest
from tests.support.small_step import ALONE

from prolip.train.stop_signal import StopRequest


@pytest.fixture(autouse=True)
def hang_up():
    """Tests may themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_batches_and_its_handler_is_restored(number):
    before = signal.getsignal(number)
    with StopRequest(ALONE) as stopping:
        assert signal.getsignal(number) is not before  # otherwise the next line would end the tests
        for batch in stopping.until_stopped(itertools.count()):
            if batch == 2:
                os.kill(os.getpid(), number)
        assert (batch, stopping.signal) == (2, number)
    assert signal.getsignal(number) is before


def test_a_signal_ends_the_wait_for_a_batch_and_a_second_one_does_no_harm():
    def silent():
        yield 0
        try:
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    with StopRequest(ALONE) as stopping:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert list(stopping.until_stopped(silent())) == [0]
        assert stopping.signal == signal.SIGINT


def test_a_run_under_nohup_ignores_that_its_terminal_is_gone():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest(ALONE) as stopping:
        os.kill(os.getpid(), signal.SIGHUP)
        assert next(stopping.until_stopped(itertools.count())) == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
