"""Pairs are read in blocks, shuffled and checked."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.support.frozen_pairs import made_up, write_npz
from tests.support.refusals import refusal_of
from tests.support.vector_rows import write_parts

from prolip.adapt.pairs import Pairs, open_pairs
from prolip.errors import UserError
from prolip.gaussian import Gaussian

DIM = 4


def write_folder(folder: Path, sizes: list[int], *, keys: str = "k") -> Path:
    """A folder as `prolip embed` writes it, whose rows are those of `made_up`."""
    image, text = map(Gaussian.point, made_up(sum(sizes), DIM))
    return write_parts(folder, {"image": image, "text": text}, sizes, keys=keys)


def write_parquet(path: Path, image: torch.Tensor, text: torch.Tensor) -> Path:
    pq.write_table(pa.table({"image": image.tolist(), "text": text.double().tolist(), "url": ["u"] * len(image)}), path)
    return path


def everything(pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    blocks = list(pairs.blocks(rows=3))
    assert all(len(block.image) <= 3 for block in blocks)
    return torch.cat([block.image for block in blocks]), torch.cat([block.text for block in blocks])


@pytest.mark.parametrize("form", ["npz", "compressed", "parquet", "folder"])
def test_every_kind_of_source_gives_the_same_rows(tmp_path, form):
    image, text = made_up(10, DIM)
    if form == "folder":
        source = write_folder(tmp_path / "folder", [7, 0, 3])
    elif form == "parquet":
        source = write_parquet(tmp_path / "pairs.parquet", image, 5 * text)
    else:
        source = write_npz(tmp_path / "pairs.npz", image, 5 * text, compressed=form == "compressed")
    pairs = open_pairs([str(source)])
    assert (pairs.count, pairs.dim) == (10, DIM)
    found = everything(pairs)
    torch.testing.assert_close(found[0], image)
    torch.testing.assert_close(found[1], text)  # of unit norm, whatever was stored


def test_an_epoch_has_every_pair_once(tmp_path):
    sources = [write_folder(tmp_path / "a", [20, 13]), write_npz(tmp_path / "b.npz", *made_up(31, DIM, seed=1))]
    pairs = open_pairs([*map(str, sources)])
    rows = torch.cat([batch.image for batch in islice(pairs.batches(8, 0, buffer=24), 3 * pairs.count // 8)])
    _, counts = rows.unique(dim=0, return_counts=True)
    assert counts.tolist() == [3] * pairs.count
    again = torch.cat([batch.image for batch in islice(pairs.batches(8, 0, buffer=24), 3 * pairs.count // 8)])
    assert torch.equal(rows, again), "the same seed"
    other = torch.cat([batch.image for batch in islice(pairs.batches(8, 1, buffer=24), 3 * pairs.count // 8)])
    assert not torch.equal(rows, other)


def test_masked_views_are_read_with_their_pairs(tmp_path):
    whole, masked = write_folder(tmp_path / "whole", [6, 5]), write_folder(tmp_path / "masked", [6, 5])
    batch = next(open_pairs([str(whole)], [str(masked)]).batches(8, 0))
    assert len(batch.image) == 8
    assert batch.masked_image is not None
    assert batch.masked_text is not None
    torch.testing.assert_close(batch.masked_image, batch.image)
    torch.testing.assert_close(batch.masked_text, batch.text)


def test_masked_views_of_other_pairs_are_refused(tmp_path):
    whole = write_folder(tmp_path / "whole", [6, 5])
    others = (write_folder(tmp_path / "fewer", [6, 4]), write_folder(tmp_path / "others", [6, 5], keys="x"))
    for other in others:
        with refusal_of("masked"):
            open_pairs([str(whole)], [str(other)])


ONES = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"image": ONES},
        {"image": ONES, "text": np.ones((2, 4), np.float32)},
        {"image": ONES, "text": np.ones((3, 5), np.float32)},
        {"image": ONES, "text": np.ones(3, np.float32)},
        {"image": 0 * ONES, "text": ONES},
        {"image": math.nan * ONES, "text": ONES},
        {"image": np.full((3, 4), 1e300), "text": ONES},
    ],
    ids=str,
)
def test_arrays_that_are_no_pairs_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with refusal_of(str(tmp_path / "a.npz")):
        list(open_pairs([str(tmp_path / "a.npz")]).blocks())


def test_sources_that_are_none_are_refused(tmp_path):
    for name in ("a.txt", "a.npz", "a.parquet"):
        (tmp_path / name).write_text("a")
    write_parts(tmp_path / "images", {"image": Gaussian.point(made_up(3, DIM)[0])}, [3])
    write_npz(tmp_path / "empty.npz", torch.ones(0, 4), torch.ones(0, 4))
    for name in ("absent", "a.txt", "a.npz", "a.parquet", "images", "empty.npz"):
        with pytest.raises(UserError, match=name):
            open_pairs([str(tmp_path / name)])
