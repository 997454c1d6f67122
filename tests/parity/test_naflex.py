"""Images at native aspect ratio: grids and arrays of timm's NaFlex pipeline."""

from __future__ import annotations

from hypothesis import example, given, strategies as st
from timm.data.naflex_transforms import get_image_size_for_seq

from prolip.data import grid_of

SIDES = st.integers(1, 6000)


@given(st.tuples(SIDES, SIDES), st.integers(4, 32), st.integers(1, 2048))
@example((1, 1), 16, 1024)  # even a hundred times larger it does not fill its sequence
def test_grids_equal_timms(size: tuple[int, int], patch: int, seq_len: int) -> None:
    _, (height, width) = get_image_size_for_seq(size, patch, seq_len)
    assert grid_of(*size, patch, seq_len) == (height // patch, width // patch)


def test_the_grid_of_an_endless_image_stays_within_its_sequence() -> None:
    assert grid_of(1, 2**32 - 1, 1, 7) == (1, 7)
