"""torch's table of ONNX operators, built once: building it takes a quarter of the time of a small export."""

from functools import cache

import pytest


def make_table_once():
    """No export adds operators of its own, so all of this process may have the same table."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    if not hasattr(ONNXRegistry.from_torchlib, "cache_info"):
        ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))


@pytest.fixture
def one_table():
    make_table_once()
