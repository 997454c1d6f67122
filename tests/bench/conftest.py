"""Ordinary runs take every benchmark at a toy size, without its limits. `pytest -m bench -s` measures."""

import pytest
from tests.support.forkserver import FORKSERVER


@pytest.fixture(scope="session")
def full(pytestconfig):
    """Whether to measure at full size, and to check the limits."""
    return "bench" in pytestconfig.getoption("markexpr")


@pytest.fixture(autouse=True)
def _warm(full, monkeypatch):
    """At a toy size, processes come from a server that has imported PyTorch."""
    if not full:
        monkeypatch.setattr("multiprocessing.get_context", lambda _: FORKSERVER)
