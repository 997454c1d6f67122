"""Signals that stop a run, and the one that nohup hides from it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from tests.support.small_step import ALONE

from prolip.train.stop_signal import StopRequest


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """Tests may themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_agreed_on_and_its_handler_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest(ALONE) as stopping:
        assert stopping.agreed() == 0
        assert signal.getsignal(number) is not before  # otherwise the next line would end the tests
        os.kill(os.getpid(), number)
        assert stopping.agreed() == number
    assert signal.getsignal(number) is before


def test_a_run_under_nohup_ignores_that_its_terminal_is_gone() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest(ALONE) as stopping:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stopping.agreed() == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
