"""Uncertainty by length and along chains, against loops; tables of hierarchies."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prolip.evaluation.csv_datasets import read_levels
from prolip.gaussian import Gaussian
from prolip.metrics.hierarchy import mean_root, string_ids
from prolip.metrics.statistics import spearman
from prolip.metrics.uncertainty import (
    count_words,
    uncertainty_along_chains,
    uncertainty_by_length,
)

T = torch.tensor
values = st.floats(1e-3, 1e3)


@settings(max_examples=30)
@given(st.lists(st.tuples(values, st.integers(0, 9)), min_size=1, max_size=40))
def test_means_by_length_equal_a_slow_loop(items: list[tuple[float, int]]) -> None:
    uncertainty, length = (T(column) for column in zip(*items, strict=True))
    found = uncertainty_by_length(uncertainty.double(), length, num_resamples=5)
    groups: dict[int, list[float]] = {}
    for value, size in items:
        groups.setdefault(size, []).append(value)
    assert found.length == sorted(groups)
    assert found.num_items == [len(groups[size]) for size in found.length]
    expected = [sum(groups[size]) / len(groups[size]) for size in found.length]
    assert found.mean == pytest.approx(expected, rel=1e-5)
    assert found.spearman.value == pytest.approx(spearman(uncertainty, length), nan_ok=True)


def test_spearman_is_minus_one_if_longer_is_always_more_certain() -> None:
    found = uncertainty_by_length(T([9.0, 5.0, 4.0, 1.0]), T([1, 2, 3, 7]))
    assert (found.spearman.value, found.spearman.low, found.spearman.high) == pytest.approx((-1, -1, -1))


@settings(max_examples=20)
@given(st.integers(1, 20), st.integers(2, 4), st.integers(0, 1000))
def test_chain_figures_equal_a_slow_loop(count: int, levels: int, seed: int) -> None:
    chains = torch.randint(1, 5, (count, levels), generator=torch.Generator().manual_seed(seed)).double()
    found = uncertainty_along_chains(chains, num_resamples=5)
    assert found.mean == pytest.approx([sum(column) / count for column in chains.T.tolist()])
    falling = [all(chain[i] > chain[i + 1] for i in range(levels - 1)) for chain in chains.tolist()]
    assert found.share_ordered.value == pytest.approx(sum(falling) / count)
    pairs = [(value, -level) for chain in chains.tolist() for level, value in enumerate(chain)]
    expected = spearman(*(T(column, dtype=torch.float64) for column in zip(*pairs, strict=True)))
    assert found.spearman.value == pytest.approx(expected, nan_ok=True)


def test_whole_chains_are_resampled() -> None:
    # Every chain is ordered, whatever is drawn: resampled items would not be.
    chains = torch.arange(30.0).reshape(10, 3).flip(1)
    found = uncertainty_along_chains(chains, num_resamples=50)
    assert tuple(found.share_ordered) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="cannot be resampled"):
        uncertainty_along_chains(torch.zeros(0, 3))


def test_words_are_counted_and_equal_captions_share_an_id() -> None:
    assert count_words(["a red  car", "", "sky\n"]).tolist() == [3, 0, 1]
    assert string_ids([["a", "a b"], ["a", "c"]]).tolist() == [[0, 1], [0, 2]]


def test_a_table_of_hierarchies_is_read_by_column(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('id,captions,image_url\n0,"sky => blue sky, clear => a day",u0\n1,sky=>grey sky => rain,u1\n')
    columns = ("captions", "image_url")
    captions, urls = read_levels(path, *columns)
    assert captions == [["sky", "blue sky, clear", "a day"], ["sky", "grey sky", "rain"]]
    assert string_ids(captions).tolist() == [[0, 1, 2], [0, 3, 4]]
    assert urls == ["u0", "u1"]
    path.write_text("id,captions,image_url\n0,a => b,u\n1,a,u\n")
    with pytest.raises(ValueError, match="number of levels"):
        read_levels(path, *columns)
    path.write_text("id,captions,image_url\n0,a => b,u\n1\n")
    with pytest.raises(ValueError, match="number of levels"):
        read_levels(path, *columns)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"table\.csv: 'utf-8' codec"):
        read_levels(path, *columns)
    path.write_text("id,text\n0,a\n")
    with pytest.raises(ValueError, match="not a table with columns captions and image_url"):
        read_levels(path, *columns)


def test_hierarcaps_has_1000_chains_with_captions_that_get_longer(shared: Path) -> None:
    if not (shared / "hierarcaps_test.csv").is_file():
        pytest.skip("the shared folder has no hierarcaps_test.csv")
    captions, _ = read_levels(shared / "hierarcaps_test.csv", "captions", "image_url")
    assert string_ids(captions).shape == (1000, 4)
    assert captions[1][:2] == ["bird", "blue bird"]
    words = count_words([caption for levels in captions for caption in levels]).reshape(1000, 4).double()
    assert words.mean(dim=0).diff().gt(0).all()  # specific captions are longer


def test_the_root_of_images_is_their_normalised_mean() -> None:
    items = Gaussian(T([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.zeros(2, 1, 2))
    assert mean_root(items).tolist() == pytest.approx([math.sqrt(0.5)] * 2)
