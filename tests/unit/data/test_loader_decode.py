"""`prolip.data.decode`: one image at a time, from any thread. `tests/parity` compares its pixels with PIL's."""

import subprocess
import sys

import numpy as np
import pytest
from tests.support.images import encode, noise
from tests.support.shards import config, write_tar

from prolip.data import BatchLoader, DataError, decode


def test_a_decode_error_names_the_fault_and_later_calls_work():
    file = encode(noise(1), "JPEG")
    before = decode(file)
    with pytest.raises(DataError, match="truncated"):
        decode(file[:-2])
    with pytest.raises(DataError, match="not a JPEG, PNG"):
        decode(b"text")
    assert np.array_equal(decode(file), before)


@pytest.mark.parametrize(("kind", "name"), [("GIF", "b.gif"), ("BMP", "b.bmp"), ("GIF", "b.jpg"), ("BMP", "b.png")])
def test_a_format_that_must_be_converted_is_named(kind, name, tmp_path):
    write_tar(tmp_path / "a.tar", [("a.jpg", encode(noise(), "JPEG")), (name, encode(noise(), kind))])
    settings = config(str(tmp_path / "a.tar"), last_batch="keep", captions=(), max_bad_fraction=1)
    with BatchLoader(settings) as loader:
        assert next(iter(loader)).keys == ["a"]
        (bad,) = loader.stats().bad_samples
    assert bad.key == "b"
    assert f"{kind} is not read from shards" in bad.reason


def test_numpy_is_looked_up_before_the_first_array():
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
