"""`prolip.data.decode`: one image at a time, from any thread. `tests/parity` compares its pixels with PIL's."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from tests.support.images import encode

from prolip.data import DataError, decode


def encoded(width: int, height: int, seed: int, *, progressive: bool = False) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encode(Image.fromarray(noise), "JPEG", progressive=progressive)


@pytest.mark.parametrize("progressive", [False, True])
def test_several_threads_decode_at_once(progressive: bool) -> None:
    files = [encoded(20 + seed, 90 - seed, seed, progressive=progressive) for seed in range(40)]
    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(decode, files))
    for file, image in zip(files, images, strict=True):
        assert image.dtype == np.uint8
        assert np.array_equal(image, np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))


def test_a_decode_error_names_the_fault_and_later_calls_work() -> None:
    file = encoded(30, 20, 1)
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
