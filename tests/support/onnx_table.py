"""torch's table of ONNX operators, made once: every export makes it anew, which is a quarter of a small one."""

from __future__ import annotations

from functools import cache

import pytest


def make_table_once() -> None:
    """No export adds operators of its own, so all of this process may have the same table."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    if not hasattr(ONNXRegistry.from_torchlib, "cache_info"):
        ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]


@pytest.fixture
def one_table() -> None:
    make_table_once()
