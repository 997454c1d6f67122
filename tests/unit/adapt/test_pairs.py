"""Pairs are read in blocks, shuffled and checked."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from tests.support.frozen_pairs import made_up, write_npz

from prolip.adapt.pairs import Pairs, open_pairs
from prolip.embeddings.config import Kind
from prolip.embeddings.storage import Manifest, PartNotes, Rows, write_part
from prolip.errors import UserError

DIM = 4


def write_folder(folder: Path, sizes: list[int], *, keys: str = "k", what: str = "both", seed: int = 0) -> Path:
    """A folder as `prolip embed` writes it, whose rows are those of `made_up`."""
    image, text = made_up(sum(sizes), DIM, seed=seed)
    folder.mkdir()
    start, parts = 0, []
    for number, size in enumerate(sizes):
        here = slice(start, start + size)
        names = [f"{keys}{row}" for row in range(start, start + size)]
        for kind, mean in (("image", image), ("text", text)):
            if what in {"both", kind}:
                known: Kind = "image" if kind == "image" else "text"
                rows = Rows(names, ["s"] * size, mean[here].numpy(), np.full((size, DIM), -np.inf, np.float32))
                notes = PartNotes(number=number, kind=known, rows=size)
                parts.append(write_part(folder, rows, notes).name)
        start += size
    Manifest(
        checkpoint="model",
        weights="digest",
        tokenizer=None,
        model={},
        dim=DIM,
        dtype="float32",
        settings={},
        plan=[],
        complete=True,
        parts=parts,
        rows={"image": sum(sizes), "text": sum(sizes)},
    ).write(folder)
    return folder


def write_parquet(path: Path, image: torch.Tensor, text: torch.Tensor) -> Path:
    pq.write_table(pa.table({"image": image.tolist(), "text": text.double().tolist(), "url": ["u"] * len(image)}), path)
    return path


def everything(pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    blocks = list(pairs.blocks(rows=3))
    assert all(len(block.image) <= 3 for block in blocks)
    return torch.cat([block.image for block in blocks]), torch.cat([block.text for block in blocks])


@pytest.mark.parametrize("form", ["npz", "compressed", "parquet", "folder"])
def test_every_kind_of_source_gives_the_same_rows(tmp_path: Path, form: str) -> None:
    image, text = made_up(10, DIM)
    if form == "folder":
        source = write_folder(tmp_path / "folder", [7, 0, 3])
    elif form == "parquet":
        source = write_parquet(tmp_path / "pairs.parquet", image, 5 * text)
    else:
        source = write_npz(tmp_path / "pairs.npz", image, 5 * text, compressed=form == "compressed")
    pairs = open_pairs([source])
    assert (pairs.count, pairs.dim) == (10, DIM)
    found = everything(pairs)
    torch.testing.assert_close(found[0], image)
    torch.testing.assert_close(found[1], text)  # of unit norm, whatever was stored


def test_half_precision_embeddings_are_read_as_float32(tmp_path: Path) -> None:
    image, text = made_up(5, DIM)
    found = everything(open_pairs([write_npz(tmp_path / "a.npz", image.half(), text.half())]))[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, image, atol=1e-3, rtol=0)


def test_an_epoch_has_every_pair_once(tmp_path: Path) -> None:
    sources = [write_folder(tmp_path / "a", [20, 13]), write_npz(tmp_path / "b.npz", *made_up(31, DIM, seed=1))]
    pairs = open_pairs(sources)
    rows = torch.cat([batch.image for batch in islice(pairs.batches(8, 0, buffer=24), 3 * pairs.count // 8)])
    _, counts = rows.unique(dim=0, return_counts=True)
    assert counts.tolist() == [3] * pairs.count
    again = torch.cat([batch.image for batch in islice(pairs.batches(8, 0, buffer=24), 3 * pairs.count // 8)])
    assert torch.equal(rows, again), "the same seed"
    other = torch.cat([batch.image for batch in islice(pairs.batches(8, 1, buffer=24), 3 * pairs.count // 8)])
    assert not torch.equal(rows, other)


def test_images_stay_with_their_texts(tmp_path: Path) -> None:
    image, text = made_up(40, DIM, noise=0.01)
    pairs = open_pairs([write_npz(tmp_path / "a.npz", image, text)])
    batch = next(pairs.batches(16, 0))
    assert float((batch.image * batch.text).sum(1).min()) > 0.99
    assert batch.masked_image is None
    assert batch.masked_text is None


def test_fewer_pairs_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    pairs = open_pairs([write_npz(tmp_path / "a.npz", *made_up(5, DIM))])
    batches = list(islice(pairs.batches(512, 0), 2))
    assert [len(batch.image) for batch in batches] == [5, 5]


def test_masked_views_are_read_with_their_pairs(tmp_path: Path) -> None:
    whole, masked = write_folder(tmp_path / "whole", [6, 5]), write_folder(tmp_path / "masked", [6, 5])
    batch = next(open_pairs([whole], [masked]).batches(8, 0))
    assert batch.masked_image is not None
    assert batch.masked_text is not None
    torch.testing.assert_close(batch.masked_image, batch.image)
    torch.testing.assert_close(batch.masked_text, batch.text)


def test_masked_views_of_other_pairs_are_refused(tmp_path: Path) -> None:
    whole = write_folder(tmp_path / "whole", [6, 5])
    with pytest.raises(UserError, match="do not have the same rows"):
        open_pairs([whole], [write_folder(tmp_path / "fewer", [6, 4])])
    with pytest.raises(UserError, match="have different keys"):
        open_pairs([whole], [write_folder(tmp_path / "others", [6, 5], keys="x")])


def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        image = np.random.default_rng(0).standard_normal((count, 64)).astype(np.float32)
        table = pa.table({"image": list(image), "text": list(image)})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
        pairs = open_pairs([tmp_path / "a.parquet"])
        tracemalloc.start()
        held = 0
        for batch in islice(pairs.batches(256, 0, buffer=1024), count // 256):
            held = max(held, batch.image.untyped_storage().nbytes())
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert held <= 2 * 1024 * 64 * 4 + 1024 * 64 * 4, "torch's own memory is a buffer's"
        return found

    assert peak(40_000) < 1.2 * peak(5_000)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.ones((3, 4), np.float32)}, "has no array 'text'"),
        ({"image": np.ones((3, 4), np.float32), "text": np.ones((3, 4), np.int64)}, "must be floats"),
        ({"image": np.ones((3, 4), np.float32), "text": np.ones(3, np.float32)}, "must be floats"),
        ({"image": np.ones((3, 4), np.float32), "text": np.ones((3, 5), np.float32)}, r"it must be \[N, 4\]"),
        ({"image": np.zeros((3, 4), np.float32), "text": np.ones((3, 4), np.float32)}, "length 0.0"),
        ({"image": np.full((3, 4), np.nan, np.float32), "text": np.ones((3, 4), np.float32)}, "length nan"),
        ({"image": np.full((3, 4), 1e300), "text": np.ones((3, 4), np.float32)}, "length inf"),
        ({"image": np.ones((0, 4), np.float32), "text": np.ones((0, 4), np.float32)}, "hold no pairs"),
        ({"image": np.ones((2, 4), np.float32), "text": np.ones((3, 4), np.float32)}, "as many images as texts"),
    ],
)
def test_files_without_pairs_are_refused_with_the_reason(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        list(open_pairs([tmp_path / "a.npz"]).blocks())


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0.0], None],
        [None, [1.0, 0.0]],
        [[1.0, 0.0], [1.0]],
        [1.0, 0.0],
        ["a", "b"],
        [["a", "b"]] * 2,
    ],
    ids=str,
)
def test_rows_of_a_table_that_are_no_embeddings_are_refused(tmp_path: Path, rows: list[Any]) -> None:
    pq.write_table(pa.table({"image": rows, "text": [[1.0, 0.0]] * 2}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: image must have a list of numbers in every row"):
        list(open_pairs([tmp_path / "a.parquet"]).blocks())


@pytest.mark.parametrize("kept", [9, 400], ids=["a few bytes", "no end"])
def test_a_damaged_table_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [[1.0, 0.0]] * 200, "text": [[1.0, 0.0]] * 200}), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"a\.parquet is damaged"):
        open_pairs([path])


def test_a_table_with_damaged_pages_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    numbers = np.random.default_rng(0).random((200, 2)).tolist()
    pq.write_table(pa.table({"image": numbers, "text": numbers}), path)
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.parquet is damaged"):
        list(open_pairs([path]).blocks())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", *made_up(300, DIM))
    data = bytearray(path.read_bytes())
    data[1000] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz is damaged: Bad CRC-32"):
        list(open_pairs([path]).blocks())


@pytest.mark.parametrize(("first", "last"), [(30, 60), (60, 200)], ids=["name", "header"])
def test_a_file_whose_arrays_cannot_be_opened_is_named(tmp_path: Path, first: int, last: int) -> None:
    path = write_npz(tmp_path / "a.npz", *made_up(30, DIM))
    data = bytearray(path.read_bytes())
    data[first:last] = bytes(last - first)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz is damaged"):
        open_pairs([path])


def test_unsupported_sources_are_refused_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder of `prolip embed` nor a file"):
        open_pairs([tmp_path / "absent"])
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"nor an \.npz or \.parquet file"):
        open_pairs([tmp_path / "a.txt"])
    (tmp_path / "a.npz").write_text("a")
    with pytest.raises(UserError, match="is not a file of numpy arrays"):
        open_pairs([tmp_path / "a.npz"])
    pq.write_table(pa.table({"image": [[1.0]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has no column 'text'"):
        open_pairs([tmp_path / "a.parquet"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"manifest"):
        open_pairs([tmp_path / "empty"])
    with pytest.raises(UserError, match="text embeddings"):
        open_pairs([write_folder(tmp_path / "images", [3], what="image")])


def test_rows_are_unit_vectors(tmp_path: Path) -> None:
    image, text = made_up(6, DIM)
    pairs = open_pairs([write_npz(tmp_path / "a.npz", 100 * image, text)])
    torch.testing.assert_close(pairs.sample(100).image.norm(dim=1), torch.ones(6))
    assert len(pairs.sample(4).image) == 4
    torch.testing.assert_close(everything(pairs)[0], F.normalize(image, dim=1))
