"""The ranks that share a batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch.distributed as dist

from prolip.distributed import Peers


@pytest.mark.parametrize(("backend", "on_nccl"), [("gloo", False), ("nccl", True), ("cpu:gloo,cuda:nccl", True)])
def test_peers_know_whether_they_use_nccl(monkeypatch: pytest.MonkeyPatch, backend: str, on_nccl: bool) -> None:
    assert not Peers().on_nccl
    group = SimpleNamespace()
    for name, value in (("is_initialized", True), ("get_rank", 0), ("get_world_size", 2), ("get_backend", backend)):
        monkeypatch.setattr(dist, name, lambda *_, value=value: value)
    assert Peers(cast(Any, group)).on_nccl is on_nccl
