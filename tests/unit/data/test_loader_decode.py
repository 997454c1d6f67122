"""`prolip.data.decode`: one image at a time, from any thread. `tests/parity` compares its pixels with PIL's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tests.support.images import encode, noise

from prolip.data import DataError, decode


def test_a_decode_error_names_the_fault_and_later_calls_work() -> None:
    file = encode(noise(1), "JPEG")
    before = decode(file)
    with pytest.raises(DataError, match="truncated"):
        decode(file[:-2])
    with pytest.raises(DataError, match="not a JPEG, PNG"):
        decode(b"text")
    assert np.array_equal(decode(file), before)


def test_numpy_is_looked_up_before_the_first_array() -> None:
    # An interrupt during the look-up, which is Python code, would be a panic.
    script = """
import io, sys
from PIL import Image
from prolip.data.loader import decode
file = io.BytesIO()
Image.new("RGB", (3, 2)).save(file, "PNG")
for name in ("numpy.core.multiarray", "numpy._core.multiarray"):
    sys.modules[name] = None
assert decode(file.getvalue()).shape == (2, 3, 3)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
