"""`prolip embed`: its parts hold the model's embeddings, also after interruptions and reruns."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import write_checkpoint, write_run

from prolip.checkpoint import open_saved
from prolip.cli import main
from prolip.data import BatchLoader, DataError, LoaderConfig
from prolip.data.device import DeviceBatch, device_batches
from prolip.embeddings.config import EmbedOptions, Kind
from prolip.embeddings.embed import embed_images, embed_texts
from prolip.embeddings.embed_parts import run_embed
from prolip.embeddings.input_parts import Reading
from prolip.embeddings.row_contents import fetch
from prolip.embeddings.storage import Manifest, Part, complete_parts
from prolip.models.config import Precision
from prolip.models.precision import DTYPES
from prolip.pretrained.open import load


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, three shards of 5, 4 and 3 samples with captions, a folder of pictures, one of them damaged."""
    folder = tmp_path_factory.mktemp("source")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    for shard, size in enumerate((5, 4, 3)):
        members = []
        for number in range(size):
            key = f"k{number}"  # the same keys in every shard
            members += [
                (f"{key}.png", encoded((shard * 90, number * 40, 99))),
                (f"{key}.txt", f"a picture of {'food' if number % 2 else 'travel'}".encode()),
            ]
        write_tar(folder / f"shard{shard}.tar", members)
    pictures = folder / "pictures" / "some.where"
    pictures.mkdir(parents=True)
    for number in range(5):
        (pictures / f"a.{number}.png").write_bytes(encoded((number * 50, 9, 9)))
        (pictures / f"a.{number}.txt").write_text("a picture")
    (pictures / "a.3.png").write_bytes(b"damaged")
    (folder / "lines.txt").write_text("a picture of food\n\nan emoji\n")
    return folder


def options(source: Path, out: Path, **changes: object) -> EmbedOptions:
    given = {
        "checkpoint": str(source / "run"),
        "out": out,
        "shards": (str(source / "shard{0..2}.tar"),),
        "batch_size": 2,
    }
    return EmbedOptions(**(given | {"device": "cpu"} | changes))  # type: ignore[arg-type]


def read(out: Path, kind: Kind) -> tuple[list[str], list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Keys, sources, means, log variances and total variances of all parts."""
    keys, sources, blocks = [], [], []
    for part in complete_parts(out, kind)[1]:
        some, where = part.names()
        keys, sources = keys + some, sources + where
        blocks += list(part.blocks(2, log_var=True))
    assert all(block.log_var is not None for block in blocks)
    mean, log_var, total = ([getattr(block, name) for block in blocks] for name in ("mean", "log_var", "total_var"))
    return keys, sources, np.concatenate(mean), np.concatenate(log_var), np.concatenate(total)


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parts_hold_what_the_model_says_of_shards(source: Path, tmp_path: Path, form: str, dtype: str) -> None:
    told = run_embed(options(source, tmp_path, what="both", format=form, dtype=dtype))
    assert "12 images, 12 captions in 3 parts, 3 of them new" in told[0]
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
def test_towers_compute_in_the_precision(
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


def test_a_folder_and_lines_keep_their_names_and_a_bad_picture_is_named(source: Path, tmp_path: Path) -> None:
    folder = str(source / "pictures")
    given = options(source, tmp_path, shards=(), images=(Path(folder),), lines=(source / "lines.txt",), rows_per_part=2)
    told = run_embed(replace(given, what="both", precision="bf16"))
    assert told[2] == "1 samples could not be used:"
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


def test_a_folders_captions_are_those_of_their_pictures(source: Path, tmp_path: Path) -> None:
    words = ["food", "travel", "nature", "emoji"]
    (tmp_path / "pictures").mkdir()
    for number, word in enumerate(words):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(encoded((number * 50, 9, 9)))
        (tmp_path / "pictures" / f"{number}.txt").write_text(word)
    given = options(source, tmp_path / "out", shards=(), images=(tmp_path / "pictures",), what="both", rows_per_part=3)
    run_embed(given)
    keys, _, mean, *_ = read(tmp_path / "out", "text")
    opened = load(source / "run", device="cpu")
    model, tokenizer = opened.require_prolip(), opened.require_tokenizer()
    assert keys == [f"{number}.png" for number in range(4)]
    np.testing.assert_allclose(mean, embed_texts(model, tokenizer, words, torch.device("cpu")).mean, atol=1e-5)
    # As many pictures under other names are other data.
    (tmp_path / "pictures" / "1.png").rename(tmp_path / "pictures" / "1b.png")
    with pytest.raises(ValueError, match="holds embeddings of other data"):
        run_embed(given)


@pytest.mark.parametrize("rows_per_part", [1, 3])
def test_files_that_cannot_be_read_are_named(source: Path, tmp_path: Path, rows_per_part: int) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (9, 9), "red").save(folder / "c.tif")
    (folder / "a.tif").write_bytes(b"damaged")
    (folder / "b.tif").write_bytes(b"damaged")
    told = run_embed(options(source, tmp_path / "out", shards=(), images=(folder,), rows_per_part=rows_per_part))
    assert f"1 image in {3 if rows_per_part == 1 else 1} part" in told[0]
    assert told[2] == "2 samples could not be used:"
    assert [line.split(": ")[1] for line in told[3:]] == ["a.tif", "b.tif"]
    assert read(tmp_path / "out", "image")[0] == ["c.tif"]


def test_finished_parts_are_not_made_again(source: Path, tmp_path: Path) -> None:
    run_embed(options(source, tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("image-*")}
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("image-*")}
    (tmp_path / "image-000001.parquet").unlink()
    (tmp_path / ".image-000001.parquet.tmp").write_bytes(b"half of it")
    assert "3 parts, 1 of them new" in run_embed(options(source, tmp_path, batch_size=3))[0]
    after = {path.name: path.read_bytes() for path in tmp_path.glob("image-*")}
    assert after.keys() == before.keys()
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("image-*")}
    assert [name for name in times if times[name] != again[name]] == ["image-000001.parquet"]
    run = Manifest.read(tmp_path).run
    assert len(run_embed(options(source, tmp_path))) == 1
    assert Manifest.read(tmp_path).run == run, "what did nothing has nothing to say of speed"


def test_a_run_that_failed_goes_on_and_more_shards_may_come(source: Path, tmp_path: Path) -> None:
    for number in (0, 1):
        shutil.copy(source / f"shard{number}.tar", tmp_path)
    (tmp_path / "shard1.tar").write_bytes(b"no archive" * 100)
    out = tmp_path / "out"
    data = [str(tmp_path / "shard0.tar"), str(tmp_path / "shard1.tar")]
    with pytest.raises(DataError, match=r"shard1\.tar"):
        run_embed(options(source, out, shards=tuple(data)))
    assert (out / "image-000000.parquet").exists()
    with pytest.raises(ValueError, match="is not finished"):
        complete_parts(out, "image")
    shutil.copy(source / "shard1.tar", tmp_path)
    assert "2 parts, 1 of them new" in run_embed(options(source, out, shards=tuple(data)))[0]
    data.append(str(source / "shard2.tar"))
    assert "3 parts, 1 of them new" in run_embed(options(source, out, shards=tuple(data)))[0]
    assert len(read(out, "image")[0]) == 12


class Interrupt:
    """Ctrl-C at the line that is so many lines further on, of those that collect and write rows."""

    def __init__(self, lines: int) -> None:
        self.left, self.home = lines, run_embed.__code__.co_filename

    def __call__(self, frame: FrameType, event: str, _: object) -> Interrupt | None:
        if event == "line":
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
        names = {"write_finished", "_write_part"}
        return self if frame.f_code.co_filename == self.home and frame.f_code.co_name in names else None


def test_wherever_an_interrupt_comes_no_part_is_wrong(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = load(source / "run", device="cpu")
    monkeypatch.setattr("prolip.embeddings.embed_parts.load", lambda *_, **__: opened)
    data = (str(source / "shard{1..2}.tar"),)
    run_embed(options(source, tmp_path / "whole", shards=data, what="both"))
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.parquet")}
    assert len(expected) == 4
    for lines in count():
        out = tmp_path / str(lines)
        given = options(source, out, shards=data, what="both")
        before = sys.gettrace()
        sys.settrace(Interrupt(lines))
        try:
            run_embed(given)
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        found = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
        assert found == {name: expected[name] for name in found}, f"interrupted behind {lines} lines"
        assert not list(out.glob(".reading*"))
        if lines % 4 == 0:
            run_embed(given)
            assert {path.name: path.read_bytes() for path in out.glob("*.parquet")} == expected
    assert lines > 20


def test_batches_may_be_read_far_ahead(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_part_that_is_damaged_is_named(source: Path, tmp_path: Path) -> None:
    run_embed(options(source, tmp_path))
    part = tmp_path / "image-000001.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    (tmp_path / "image-000002.parquet").unlink()
    with pytest.raises(ValueError, match=r"image-000001\.parquet is not a part of embeddings"):
        run_embed(options(source, tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows_per_part": 2}, r"keep rows_per_part"),
        ({"dtype": "float16"}, r"dtype was float32, is float16"),
        ({"precision": "bf16"}, r"settings was .* is .*'bf16'"),
        ({"what": "both"}, r"settings was .* is .*'both'"),
        ({"shards": ("shard1.tar", "shard0.tar")}, r"holds embeddings of other data"),
        ({"checkpoint": "other"}, r"the model is different"),
    ],
)
def test_embeddings_of_another_kind_are_not_mixed(
    source: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    first: dict[str, Any] = {"shards": (str(source / "shard0.tar"),)}
    if "rows_per_part" in changes:
        first = {"shards": (), "images": (source / "pictures",)}
    run_embed(options(source, tmp_path / "out", **first))
    if "checkpoint" in changes:
        write_run(tmp_path / "other", tmp_path / "tokenizer.json", context_length=9)
        changes = {"checkpoint": str(tmp_path / "other")}
    given = first | changes
    if "shards" in changes:
        given["shards"] = tuple(str(source / name) for name in given["shards"])
    with pytest.raises(ValueError, match=message):
        run_embed(options(source, tmp_path / "out", **given))


def test_weights_of_one_architecture_are_not_mixed(source: Path, tmp_path: Path) -> None:
    run_embed(options(source, tmp_path / "out"))
    model, saved = load(source / "run", device="cpu").require_prolip(), open_saved(source / "run")
    assert saved is not None
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    write_checkpoint(tmp_path / "other" / "checkpoints", model, saved.notes.config, step=1)
    with pytest.raises(ValueError, match="the model is different"):
        run_embed(options(source, tmp_path / "out", checkpoint=str(tmp_path / "other")))


def test_what_cannot_be_embedded_is_said(
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
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    assert "none of 1 samples could be used; the first: shard" in said("--images", str(tmp_path / "bad"))
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


class Quiet(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        """A file; where its address has a signature, that must be the right one."""
        if "?" in self.path and not self.path.endswith("?signed=secret"):
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_signature_is_shown_to_the_server_and_to_nobody_else(source: Path, tmp_path: Path) -> None:
    with serving(source) as address:
        told = run_embed(options(source, tmp_path / "out", shards=(f"{address}/shard0.tar?signed=secret",)))
    assert "5 images in 1 part," in told[0]
    assert set(read(tmp_path / "out", "image")[1]) == {f"{address}/shard0.tar?…"}
    for path in (tmp_path / "out").iterdir():
        assert b"signed" not in path.read_bytes(), path


def test_shards_on_a_server_are_embedded_and_shown_as_local_ones(source: Path, tmp_path: Path) -> None:
    with serving(source) as address:
        told = run_embed(options(source, tmp_path / "far", shards=(f"{address}/shard{{0..1}}.tar",)))
        contents = fetch([(f"{address}/shard1.tar", "k2")], 14)
    assert "9 images in 2 parts" in told[0]
    run_embed(options(source, tmp_path / "near", shards=(str(source / "shard{0..1}.tar"),)))
    far, near = (read(tmp_path / name, "image") for name in ("far", "near"))
    assert far[0] == near[0]
    assert far[1][-1] == f"{address}/shard1.tar"
    np.testing.assert_allclose(far[2], near[2], atol=1e-6)
    picture = contents[f"{address}/shard1.tar", "k2"].image
    assert picture is not None
    assert np.abs(picture[7, 7].astype(int) - (90, 80, 99)).max() < 3


def test_what_is_no_part_is_said(tmp_path: Path) -> None:
    for name in ("image-000000.parquet", "image-000000.safetensors"):
        (tmp_path / name).write_bytes(b"something else, long enough to be looked at")
        with pytest.raises(ValueError, match="is not a part of embeddings"):
            _ = Part(tmp_path / name).notes
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        complete_parts(tmp_path, "image")
