"""`prolip embed` after an earlier run: it resumes, embeds nothing twice, and mixes no settings."""

from __future__ import annotations

import json
import os
import shutil
import sys
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from tests.support.embed_options import options, read
from tests.support.untrained_run import write_checkpoint, write_run

from prolip.checkpoint import open_saved
from prolip.data import DataError
from prolip.embeddings.embed_parts import run_embed
from prolip.embeddings.storage import Manifest, complete_parts
from prolip.pretrained.open import load


def test_finished_parts_are_not_embedded_again(source: Path, tmp_path: Path) -> None:
    run_embed(options(source, tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("image-*")}
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("image-*")}
    (tmp_path / "image-000001.parquet").unlink()
    (tmp_path / ".image-000001.parquet.tmp").write_bytes(b"half of it")
    assert "3 parts (1 new)" in run_embed(options(source, tmp_path, batch_size=3))[0]
    after = {path.name: path.read_bytes() for path in tmp_path.glob("image-*")}
    assert after.keys() == before.keys()
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("image-*")}
    assert [name for name in times if times[name] != again[name]] == ["image-000001.parquet"]
    run = Manifest.read(tmp_path).run
    assert len(run_embed(options(source, tmp_path))) == 1
    assert Manifest.read(tmp_path).run == run, "what did nothing has nothing to say of speed"


def test_a_failed_run_resumes_and_shards_can_be_added(source: Path, tmp_path: Path) -> None:
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
    assert "2 parts (1 new)" in run_embed(options(source, out, shards=tuple(data)))[0]
    data.append(str(source / "shard2.tar"))
    assert "3 parts (1 new)" in run_embed(options(source, out, shards=tuple(data)))[0]
    assert len(read(out, "image")[0]) == 12


def test_a_part_whose_files_changed_is_embedded_again(source: Path, tmp_path: Path) -> None:
    for number in (0, 1):
        shutil.copy(source / f"shard{number}.tar", tmp_path)
    shutil.copytree(source / "images", tmp_path / "images")
    out = tmp_path / "out"
    data = {
        "shards": tuple(str(tmp_path / f"shard{number}.tar") for number in (0, 1)),
        "images": (tmp_path / "images",),
    }
    run_embed(options(source, out, **data))
    assert "(0 new)" in run_embed(options(source, out, **data))[0]
    shutil.copy(source / "shard2.tar", tmp_path / "shard1.tar")
    assert "(1 new)" in run_embed(options(source, out, **data))[0]
    run_embed(options(source, tmp_path / "fresh", shards=(*data["shards"],), images=data["images"]))
    for name in ("image-000000.parquet", "image-000001.parquet", "image-000002.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    image = next(path for path in sorted((tmp_path / "images").rglob("*.png")))
    os.utime(image, ns=(1, 1))
    assert "(0 new)" in run_embed(options(source, out, **data))[0]
    with image.open("ab") as file:
        file.write(b"bytes behind the end")
    assert "(1 new)" in run_embed(options(source, out, **data))[0]


def test_embeddings_of_an_earlier_version_have_no_digest_of_files_and_are_kept(source: Path, tmp_path: Path) -> None:
    run_embed(options(source, tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for part in manifest["plan"]:
        del part["files"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert "(0 new)" in run_embed(options(source, tmp_path))[0]


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


def test_an_interrupt_at_any_line_leaves_only_correct_parts(
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


def test_a_damaged_part_is_named(source: Path, tmp_path: Path) -> None:
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
        ({"dtype": "float16"}, r"with another --dtype \(float32, not float16\)"),
        ({"precision": "bf16"}, r"with another --precision \(fp32, not bf16\)"),
        ({"what": "both"}, r"with another --what \(image, not both\)"),
        ({"shards": ("shard1.tar", "shard0.tar")}, r"holds embeddings of other data"),
        ({"checkpoint": "other"}, r"of another model"),
    ],
)
def test_embeddings_with_other_settings_are_not_mixed(
    source: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    first: dict[str, Any] = {"shards": (str(source / "shard0.tar"),)}
    if "rows_per_part" in changes:
        first = {"shards": (), "images": (source / "images",)}
    run_embed(options(source, tmp_path / "out", **first))
    if "checkpoint" in changes:
        write_run(tmp_path / "other", tmp_path / "tokenizer.json", context_length=9)
        changes = {"checkpoint": str(tmp_path / "other")}
    given = first | changes
    if "shards" in changes:
        given["shards"] = tuple(str(source / name) for name in given["shards"])
    with pytest.raises(ValueError, match=message):
        run_embed(options(source, tmp_path / "out", **given))


def test_captions_of_two_tokenizers_are_not_mixed(source: Path, tmp_path: Path) -> None:
    shutil.copy(source / "tokenizer.json", tmp_path / "other.json")
    first: dict[str, Any] = {
        "shards": (),
        "lines": (source / "lines.txt",),
        "tokenizer": str(source / "tokenizer.json"),
    }
    run_embed(options(source, tmp_path / "out", **first))
    with pytest.raises(ValueError, match=r"another --tokenizer \(.*tokenizer\.json, not .*other\.json\)"):
        run_embed(options(source, tmp_path / "out", **(first | {"tokenizer": str(tmp_path / "other.json")})))
    images = {"shards": (str(source / "shard0.tar"),)}
    run_embed(options(source, tmp_path / "images", **images))
    run_embed(options(source, tmp_path / "images", **images, tokenizer=str(tmp_path / "other.json")))
    assert Manifest.read(tmp_path / "images").tokenizer == str(tmp_path / "other.json"), "images need none"


def test_weights_of_one_architecture_are_not_mixed(source: Path, tmp_path: Path) -> None:
    run_embed(options(source, tmp_path / "out"))
    model, saved = load(source / "run", device="cpu").require_prolip(), open_saved(source / "run")
    assert saved is not None
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    write_checkpoint(tmp_path / "other" / "checkpoints", model, saved.notes.config, step=1)
    with pytest.raises(ValueError, match="of another model"):
        run_embed(options(source, tmp_path / "out", checkpoint=str(tmp_path / "other")))
