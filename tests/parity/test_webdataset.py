"""Our reading of archives against webdataset's: the same samples with the same bytes, in the same order."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from webdataset import tariterators

from prolip.data import BatchLoader, LoaderConfig
from prolip.tokenizer import Tokenizer, TokenizerConfig

TOKENIZER = TokenizerConfig(context_length=8)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 255 - shade, 3)).save(buffer, "png")
    return buffer.getvalue()


def write(path: Path, members: list[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            archive.addfile(info, io.BytesIO(data))


def theirs(path: Path) -> list[dict[str, Any]]:
    """webdataset's samples that have a picture and a caption, as open_clip's training filters them."""
    with path.open("rb") as stream:
        files = tariterators.tar_file_expander([{"url": path.name, "stream": stream}])
        samples = list(tariterators.group_by_keys(files))
    return [sample for sample in samples if "txt" in sample and ("png" in sample or "jpg" in sample)]


def evaluation(path: Path) -> BatchLoader:
    return BatchLoader(
        LoaderConfig(
            shards=(str(path),),
            batch_size=3,
            image_size=8,
            tokenizer=TOKENIZER,
            shuffle_window=0,
            last_batch="keep",
            max_bad_fraction=1.0,
            keep_json=True,
        )
    )


def compare(path: Path) -> int:
    keys, shades, ids, texts = [], [], [], []
    for batch in evaluation(path):
        keys += batch.keys
        shades += batch.images[:, 0, 0, 0].tolist()
        ids += batch.token_ids[0].tolist()
        texts += batch.json or []
    expected = theirs(path)
    assert keys == [sample["__key__"] for sample in expected]
    for sample, shade, row, text in zip(expected, shades, ids, texts, strict=True):
        picture = sample["jpg"] if "jpg" in sample else sample["png"]
        assert np.asarray(Image.open(io.BytesIO(picture)))[0, 0, 0] == shade
        assert Tokenizer(TOKENIZER).encode([sample["txt"].decode()])[0].tolist() == row
        assert text.encode() == sample.get("json", b"null")
    return len(expected)


def content(name: str, place: int) -> bytes:
    """Bytes that fit the name's extension and tell the member's place."""
    match name.rsplit(".", 1)[-1].lower():
        case "png":
            return png(place)
        case "txt":
            return f"caption {place}".encode()
        case "json":
            return json.dumps(place).encode()
    return b""


UGLY = {
    "plain": ["a.png", "a.txt", "b.png", "b.txt"],
    "upper case": ["a.PNG", "a.Txt", "A.png", "A.TXT"],
    "several extensions": ["a.seg.png", "a.png", "a.txt", "a.0.txt", "a.cls"],
    "dots in folders": ["v1.0/a.png", "v1.0/a.txt", "v1.0/b.c.txt", "v1.0/b.png", "v1.0/b.txt"],
    "a sample split by another": ["a.png", "b.png", "a.txt", "b.txt", "c.png", "c.txt"],
    "members without a key": ["README", "a.png", "Makefile", "a.txt", ".hidden", ".hidden.txt", "b.png", "b.txt"],
    "hidden files in folders": ["d/.x.png", "d/.x.txt", "d/e.f/.y.png", "d/e.f/.y.txt", "d/.png", "d/.txt"],
    "meta members": ["__index__", "__meta__/a.txt", "a.png", "__stats__.json", "a.txt", "x/__y__.png", "x/__y__.txt"],
    "folders": ["d/", "d/a.png", "d/sub/", "d/a.txt", "d/sub/a.png", "d/sub/a.txt"],
    "missing members": ["a.png", "b.txt", "c.png", "c.txt", "d.json"],
    "json": ["a.json", "a.png", "a.txt"],
    "long names": [f"{'folder/' * 30}{name}" for name in ("a.png", "a.txt", "b.png", "b.txt")],
    "long names of one part": [f"{'n' * 180}.{extension}" for extension in ("png", "txt")],
    "names beyond ASCII": ["été/ß.png", "été/ß.txt", "猫.png", "猫.txt"],
    "nothing": [],
}


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("names", UGLY.values(), ids=UGLY)
def test_grouping(tmp_path: Path, names: list[str], kind: int) -> None:
    found = [(name, content(name, place)) for place, name in enumerate(names)]
    path = tmp_path / "ugly.tar"
    try:
        write(path, found, kind)
    except ValueError:
        # ustar has no room for such a name.
        assert kind == tarfile.USTAR_FORMAT
        return
    if not names:
        with pytest.raises(ValueError, match="the shards hold no sample"):
            compare(path)
    elif compare(path) == 0:
        assert "hidden" in names[0] or "d/.x.png" in names


def test_what_shard_writer_writes(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as writer:
        for index in range(7):
            writer.write(
                {"__key__": f"{index:04}", "png": png(index), "txt": f"number {index}", "json": {"index": index}}
            )
    assert compare(tmp_path / "0.tar") == 7


def test_a_duplicate_stops_webdataset_and_is_counted_here(tmp_path: Path) -> None:
    """Departure: webdataset raises and ends the shard there; here that one sample is bad, and the rest is read."""
    path = tmp_path / "0.tar"
    write(path, [("a.png", png(1)), ("a.txt", b"a"), ("a.txt", b"b"), ("b.png", png(2)), ("b.txt", b"b")])
    with pytest.raises(ValueError, match="duplicate file name"):
        theirs(path)
    loader = evaluation(path)
    assert [batch.keys for batch in loader] == [["b"]]
    assert loader.stats().bad == {"duplicate": 1}


@pytest.mark.parametrize("cut", [1, 511, 512 + 2999])
def test_damage_ends_webdataset_and_is_counted_here(tmp_path: Path, cut: int) -> None:
    """Departure: webdataset raises where a member is cut off and says nothing where a header is (tarfile takes it for
    the end); here either is one bad sample, the samples before it are the same."""
    path = tmp_path / "0.tar"
    write(path, [("a.png", png(1)), ("a.txt", b"a"), ("b.png", png(2)), ("b.txt", b"b" * 3000)])
    place = 3 * 1024
    assert path.read_bytes()[place : place + 5] == b"b.txt"
    path.write_bytes(path.read_bytes()[: place + cut])
    if cut > 512:
        with pytest.raises(Exception, match="unexpected end of data"):
            theirs(path)
    else:
        assert [sample["__key__"] for sample in theirs(path)] == ["a"]
    loader = evaluation(path)
    assert [batch.keys for batch in loader] == [["a"]]
    stats = loader.stats()
    assert stats.bad == {"caption": 1, "archive": 1}
    assert any("0.tar, sample no. 2: the archive is truncated" in line for line in stats.bad_samples)
