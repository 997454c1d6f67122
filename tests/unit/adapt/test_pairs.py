"""Pairs are read in blocks, shuffled and checked."""

import math
from itertools import islice

import pytest
import torch
from tests.support.frozen_pairs import made_up, write_pairs
from tests.support.refusals import refusal_of
from tests.support.vector_rows import write_parts

from prolip.adapt.pairs import open_pairs
from prolip.errors import UserError
from prolip.gaussian import Gaussian

DIM = 4


def write_folder(folder, sizes, *, keys="k"):
    """A folder as `prolip embed` writes it, whose rows are those of `made_up`."""
    image, text = map(Gaussian.point, made_up(sum(sizes), DIM))
    return write_parts(folder, {"image": image, "text": text}, sizes, keys=keys)


def everything(pairs):
    blocks = list(pairs.blocks(rows=3))
    assert all(len(block.image) <= 3 for block in blocks)
    return torch.cat([block.image for block in blocks]), torch.cat([block.text for block in blocks])


def test_rows_are_those_of_the_parts_and_of_unit_norm(tmp_path):
    image, text = made_up(10, DIM)
    items = {"image": Gaussian.point(image), "text": Gaussian.point(5 * text)}
    pairs = open_pairs([str(write_parts(tmp_path / "folder", items, [7, 0, 3]))])
    assert (pairs.count, pairs.dim) == (10, DIM)
    found = everything(pairs)
    torch.testing.assert_close(found[0], image)
    torch.testing.assert_close(found[1], text)


def test_an_epoch_has_every_pair_once(tmp_path):
    sources = [write_folder(tmp_path / "a", [20, 13]), write_pairs(tmp_path / "b", *made_up(31, DIM, seed=1))]
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


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_rows_that_are_no_embeddings_are_refused(value, tmp_path):
    image, text = map(Gaussian.point, made_up(3, DIM))
    text.mean[1] = value
    folder = write_parts(tmp_path / "a", {"image": image, "text": text}, [3])
    with refusal_of(str(folder / "text-000000.parquet")):
        list(open_pairs([str(folder)]).blocks())


def test_sources_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.npz").write_text("a")
    write_parts(tmp_path / "images", {"image": Gaussian.point(made_up(3, DIM)[0])}, [3])
    write_parts(
        tmp_path / "empty",
        {"image": Gaussian.point(torch.ones(0, DIM)), "text": Gaussian.point(torch.ones(0, DIM))},
        [0],
    )
    for name in ("absent", "a.npz", "images", "empty"):
        with pytest.raises(UserError, match=name):
            open_pairs([str(tmp_path / name)])
