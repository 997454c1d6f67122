"""What commands prepare before torch is imported."""

from __future__ import annotations

import os

import pytest

from prolip.cli.command import share_cores


@pytest.mark.parametrize(
    ("cores", "given", "expected"),
    [
        pytest.param(2, None, "2", id="a container's quota"),
        pytest.param(64, None, None, id="the whole machine"),
        pytest.param(2, "7", "7", id="the user's choice"),
    ],
)
def test_torch_has_no_more_threads_than_the_process_may_use_cores(
    cores: int, given: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prolip.cli.command.usable_cores", lambda: cores)
    monkeypatch.setattr("prolip.cli.command.bound_cores", lambda: set(range(64)))
    monkeypatch.setattr(os, "environ", {} if given is None else {"OMP_NUM_THREADS": given})
    share_cores()
    assert os.environ.get("OMP_NUM_THREADS") == expected
