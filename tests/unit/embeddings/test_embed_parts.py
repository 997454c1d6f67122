"""`prolip embed`: its parts hold the model's embeddings, also after interruptions and reruns."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.embed_options import options, read
from tests.support.http_servers import Request, answering, send_file
from tests.support.shards import encoded

from prolip.cli import main
from prolip.data import BatchLoader, LoaderConfig
from prolip.data.device import DeviceBatch, device_batches
from prolip.embeddings.embed import embed_images, embed_shards, embed_texts
from prolip.embeddings.embed_parts import run_embed
from prolip.embeddings.input_parts import Reading
from prolip.embeddings.row_contents import fetch
from prolip.embeddings.storage import Manifest, Part, complete_parts
from prolip.models.config import Precision
from prolip.models.precision import DTYPES
from prolip.pretrained.open import load


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_part_files_contain_the_models_gaussians(source: Path, tmp_path: Path, form: str, dtype: str) -> None:
    told = run_embed(options(source, tmp_path, what="both", format=form, dtype=dtype))
    assert "12 images, 12 captions in 3 parts (3 new)" in told[0]
    assert "the model waited for data" in told[1]
    opened = load(source / "run", device="cpu")
    model, tokenizer = opened.require_prolip(), opened.require_tokenizer()
    shards = tuple(str(source / f"shard{number}.tar") for number in range(3))
    config = LoaderConfig(
        shards=shards, batch_size=5, image_size=36, captions=(), shuffle_window=0, last_batch="keep", num_threads=1
    )
    with BatchLoader(config) as loader:
        expected = embed_images(model, loader, torch.device("cpu"))
    exact = dtype == "float32"
    for kind in ("image", "text"):
        keys, sources, mean, log_var, total_var = read(tmp_path, kind)
        assert keys == [f"k{number}" for size in (5, 4, 3) for number in range(size)]
        assert sources == [shard for shard, size in zip(shards, (5, 4, 3), strict=True) for _ in range(size)]
        gaussian = expected.gaussian
        if kind == "text":
            captions = [f"a picture of {'food' if int(key[1:]) % 2 else 'travel'}" for key in keys]
            gaussian = embed_texts(model, tokenizer, captions, torch.device("cpu"))
        np.testing.assert_allclose(mean, gaussian.mean.numpy(), atol=1e-6 if exact else 1e-3)
        np.testing.assert_allclose(log_var, gaussian.log_var.numpy(), atol=1e-5 if exact else 5e-3)
        np.testing.assert_allclose(total_var, gaussian.total_var.numpy(), rtol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_towers_compute_in_the_given_precision(
    source: Path, tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    types: set[torch.dtype] = set()
    opened = load(source / "run", device="cpu", precision=precision)
    for tower in (opened.prolip.visual, opened.prolip.text):  # type: ignore[union-attr]
        linear = next(module for module in tower.modules() if type(module) is torch.nn.Linear)
        linear.register_forward_hook(lambda _module, _given, found: types.add(found.dtype))
    monkeypatch.setattr("prolip.embeddings.embed_parts.load", lambda *_, **__: opened)
    lines = (source / "lines.txt",)
    run_embed(options(source, tmp_path / "out", what="both", lines=lines, precision=precision))
    assert types == {DTYPES[precision]}
    assert Manifest.read(tmp_path / "out").settings["precision"] == precision


def test_rows_keep_file_names_and_line_numbers_and_a_bad_image_is_named(source: Path, tmp_path: Path) -> None:
    folder = str(source / "images")
    given = options(source, tmp_path, shards=(), images=(Path(folder),), lines=(source / "lines.txt",), rows_per_part=2)
    told = run_embed(replace(given, what="both", precision="bf16"))
    assert told[2] == "1 sample could not be used:"
    assert told[3].startswith(f"  shard {folder}, sample some.where/a.3.png: cannot decode its image")
    keys, sources, *_ = read(tmp_path, "image")
    assert keys == [f"some.where/a.{number}.png" for number in (0, 1, 2, 4)]
    assert set(sources) == {folder}
    keys, sources, mean, *_ = read(tmp_path, "text")
    assert keys[-3:] == ["0", "1", "2"]
    assert sources[-1] == str(source / "lines.txt")
    opened = load(source / "run", device="cpu")
    model, tokenizer = opened.require_prolip(), opened.require_tokenizer()
    expected = embed_texts(model, tokenizer, ["a picture of food", "", "an emoji"], torch.device("cpu"))
    np.testing.assert_allclose(mean[-3:], expected.mean.numpy(), atol=0.02)
    manifest = Manifest.read(tmp_path)
    assert (manifest.rows, manifest.bad) == ({"image": 4, "text": 7}, 1)
    assert [entry.get("count") for entry in manifest.plan] == [2, 2, 1, 2, 1]
    assert not list(tmp_path.glob(".*")), "nothing temporary stays"


def test_embed_shards_takes_one_shard_or_several(source: Path) -> None:
    model, shard = load(source / "run", device="cpu"), str(source / "shard0.tar")
    one, several = embed_shards(model, shard), embed_shards(model, [shard])
    assert one.keys == several.keys
    assert one.gaussian.mean.equal(several.gaussian.mean)


def test_a_bad_image_of_a_folder_named_like_a_key_is_named(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "20240101"  # eight digits, as the keys of the shard that the images are packed into
    shutil.copytree(source / "images", folder)
    told = run_embed(options(source, tmp_path / "out", shards=(), images=(folder,)))
    assert told[3].startswith(f"  shard {folder}, sample some.where/a.3.png: cannot decode its image")


def test_captions_of_a_folder_belong_to_their_images(source: Path, tmp_path: Path) -> None:
    words = ["food", "travel", "nature", "emoji"]
    (tmp_path / "images").mkdir()
    for number, word in enumerate(words):
        (tmp_path / "images" / f"{number}.png").write_bytes(encoded((number * 50, 9, 9)))
        (tmp_path / "images" / f"{number}.txt").write_text(word)
    given = options(source, tmp_path / "out", shards=(), images=(tmp_path / "images",), what="both", rows_per_part=3)
    run_embed(given)
    keys, _, mean, *_ = read(tmp_path / "out", "text")
    opened = load(source / "run", device="cpu")
    model, tokenizer = opened.require_prolip(), opened.require_tokenizer()
    assert keys == [f"{number}.png" for number in range(4)]
    np.testing.assert_allclose(mean, embed_texts(model, tokenizer, words, torch.device("cpu")).mean, atol=1e-5)
    # As many images under other names are other data.
    (tmp_path / "images" / "1.png").rename(tmp_path / "images" / "1b.png")
    with pytest.raises(ValueError, match="holds embeddings of other data"):
        run_embed(given)


def header_of_png(width: int, height: int) -> bytes:
    """Return a PNG without pixels."""
    parts = [(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("rows_per_part", [1, 3])
def test_files_that_cannot_be_read_are_named(source: Path, tmp_path: Path, rows_per_part: int) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (9, 9), "red").save(folder / "c.tif")
    (folder / "a.tif").write_bytes(b"damaged")
    (folder / "b.tif").write_bytes(b"damaged")
    # Its error has eight digits, as the names of samples: the limit of pixels.
    (folder / "d.png").write_bytes(header_of_png(20_000, 20_000))
    told = run_embed(options(source, tmp_path / "out", shards=(), images=(folder,), rows_per_part=rows_per_part))
    assert f"1 image in {4 if rows_per_part == 1 else 2} part" in told[0]
    assert told[2] == "3 samples could not be used:"
    assert [line.split(": ")[1] for line in told[3:5]] == ["a.tif", "b.tif"]
    assert told[5].startswith(f"  shard {folder}, sample d.png: ")
    assert told[5].endswith("20000 x 20000 pixels are more than the limit of 89478485")
    assert read(tmp_path / "out", "image")[0] == ["c.tif"]


def test_reading_batches_far_ahead_changes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_embed(options(source, tmp_path / "near"))

    class Ahead:
        """All batches are read before the first is embedded, as some are on a GPU."""

        wait_seconds = 0.0

        def __init__(self, reading: Reading, device: torch.device) -> None:
            self.batches = [batch._replace(images=batch.images.clone()) for batch in device_batches(reading, device)]

        def __iter__(self) -> Iterator[DeviceBatch]:
            return iter(self.batches)

    monkeypatch.setattr("prolip.embeddings.embed_parts.device_batches", Ahead)
    run_embed(options(source, tmp_path / "far"))
    near, far = (
        {path.name: path.read_bytes() for path in (tmp_path / one).glob("*.parquet")} for one in ("near", "far")
    )
    assert near == far


def test_errors_of_embed_name_the_reason(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> str:
        run = ["embed", "--checkpoint", str(source / "run"), "--device", "cpu", "--batch_size", "2"]
        assert main([*run, "--out", str(tmp_path / "out"), *words]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "nothing to embed" in said()
    assert "rows_per_part is 0: it must be at least 1" in said("--shards", "x", "--rows_per_part", "0")
    assert "there is no file absent.tar" in said("--shards", "absent.tar")
    (tmp_path / "shards").mkdir()
    shutil.copy(source / "shard0.tar", tmp_path / "shards")
    assert "has no image: for its shards, write" in said("--images", str(tmp_path / "shards"))
    (tmp_path / "empty.txt").write_text("")
    assert "is empty" in said("--lines", str(tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert "is not UTF-8" in said("--lines", str(tmp_path / "latin.txt"))
    assert "lines: absent.txt: no such file" in said("--lines", "absent.txt")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    assert "none of 1 samples could be used; the first: shard" in said("--images", str(tmp_path / "bad"))
    assert list((tmp_path / "out").iterdir()) == [], "the folder is free for other settings"
    assert "no-run is neither a file nor a folder" in said(
        "--shards", str(source / "shard0.tar"), "--checkpoint", "no-run"
    )
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded((1, 2, 3)))
    assert "caf\\udce9.png" in said("--images", str(tmp_path / "odd"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.doc").write_text("")
    assert "holds files, but no manifest.json" in said("--shards", str(source / "shard0.tar"), "--out", str(foreign))


def test_without_pyarrow_safetensors_still_work(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    words = ["embed", "--checkpoint", str(source / "run"), "--shards", str(source / "shard0.tar"), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "a"), "--format", "parquet"]) == 2
    assert "pip install 'prolip[eval]'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists(), "it is said before anything is embedded"
    assert main([*words, "--out", str(tmp_path / "b")]) == 0, "the plain package embeds without a flag"
    assert Manifest.read(tmp_path / "b").format == "safetensors"
    assert len(read(tmp_path / "b", "image")[0]) == 5
    monkeypatch.undo()  # pyarrow was installed since: what was begun goes on in its format
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    assert Manifest.read(tmp_path / "b").format == "safetensors"


def signed_file(request: Request) -> None:
    """A file; where its address has a signature, that must be the right one."""
    if "?" in request.path and not request.path.endswith("?signed=secret"):
        request.send_error(403)
    else:
        send_file(request)


def test_a_signature_in_an_address_is_not_stored(source: Path, tmp_path: Path) -> None:
    with answering(signed_file, source) as address:
        told = run_embed(options(source, tmp_path / "out", shards=(f"{address}/shard0.tar?signed=secret",)))
    assert "5 images in 1 part " in told[0]
    assert set(read(tmp_path / "out", "image")[1]) == {f"{address}/shard0.tar?…"}
    for path in (tmp_path / "out").iterdir():
        assert b"signed" not in path.read_bytes(), path


def test_remote_shards_are_embedded_and_shown_like_local_ones(source: Path, tmp_path: Path) -> None:
    with answering(signed_file, source) as address:
        told = run_embed(options(source, tmp_path / "far", shards=(f"{address}/shard{{0..1}}.tar",)))
        contents = fetch([(f"{address}/shard1.tar", "k2")], 14)
    assert "9 images in 2 parts" in told[0]
    run_embed(options(source, tmp_path / "near", shards=(str(source / "shard{0..1}.tar"),)))
    far, near = (read(tmp_path / name, "image") for name in ("far", "near"))
    assert far[0] == near[0]
    assert far[1][-1] == f"{address}/shard1.tar"
    np.testing.assert_allclose(far[2], near[2], atol=1e-6)
    image = contents[f"{address}/shard1.tar", "k2"].image
    assert image is not None
    assert np.abs(image[7, 7].astype(int) - (90, 80, 99)).max() < 3


def test_files_that_are_no_parts_are_refused(tmp_path: Path) -> None:
    for name in ("image-000000.parquet", "image-000000.safetensors"):
        (tmp_path / name).write_bytes(b"something else, long enough to be looked at")
        with pytest.raises(ValueError, match="is not a part of embeddings"):
            _ = Part(tmp_path / name).notes
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        complete_parts(tmp_path, "image")
