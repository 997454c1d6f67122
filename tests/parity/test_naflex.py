"""Images at native aspect ratio: grids and arrays of timm's NaFlex pipeline."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from PIL import Image, ImageOps
from tests.support.images import encode, noise
from timm.data.naflex_transforms import get_image_size_for_seq

from prolip.data import grid_of, preprocess_native

SIDES = st.integers(1, 6000)


@given(st.tuples(SIDES, SIDES), st.integers(4, 32), st.integers(1, 2048))
@example((1, 1), 16, 1024)  # even a hundred times larger it does not fill its sequence
def test_grids_equal_timms(size: tuple[int, int], patch: int, seq_len: int) -> None:
    _, (height, width) = get_image_size_for_seq(size, patch, seq_len)
    assert grid_of(*size, patch, seq_len) == (height // patch, width // patch)


def test_the_grid_of_an_endless_image_stays_within_its_sequence() -> None:
    assert grid_of(1, 2**32 - 1, 1, 7) == (1, 7)


@pytest.mark.usefixtures("simd_level_asked_for")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_whole_images_are_turned_and_resized_as_by_pillow(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for size in ((64, 48), (37, 151), (400, 300), (90, 701), (17, 1)):
        data = encode(noise(1, size), kind, exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            turned = ImageOps.exif_transpose(image).convert("RGB")
        for patch, seq_len in ((16, 64), (8, 196), (32, 9)):
            rows, columns = grid_of(turned.height, turned.width, patch, seq_len)
            expected = turned.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
            assert np.array_equal(preprocess_native(data, patch, seq_len), expected), size
