"""Checkpoints and exported folders carry their tokenizer and image preprocessing; older ones still open."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from tests.support.untrained_run import write_run

from prolip.checkpoint import CheckpointError, checkpoint_path, open_saved
from prolip.checkpoint.folder import commit, partial_path, record
from prolip.cli import main
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import CLIP_MERGES, Tokenizer
from prolip.errors import UserError
from prolip.models import ARCHITECTURES
from prolip.pretrained.carried import carry, check_image_settings, image_settings, located, read_settings
from prolip.pretrained.open import load


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", tmp_path / "own.json", context_length=7)
    return tmp_path / "run"


def without(run: Path, *names: str, **notes: object) -> None:
    """Rewrites a run's checkpoint without some files, and with other notes."""
    path = checkpoint_path(run / "checkpoints", 1)
    content = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**content, **notes}))
    for name in names:
        (path / name).unlink()
    files = {file.name: record(file) for file in path.iterdir() if file.name != "manifest.json"}
    path.rename(partial_path(path))
    commit(path, files, None)


def test_a_checkpoint_contains_the_tokenizer_and_its_padding(tmp_path: Path) -> None:
    write_run(tmp_path / "run", tmp_path / "own.json", context_length=7)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "of"}')
    config = TokenizerConfig(kind="file", path=tmp_path / "own.json", context_length=7)
    carried = carry(config, ARCHITECTURES["demo"])
    assert carried.tokenizer is not None
    assert carried.files == {"tokenizer.json": (tmp_path / "own.json").read_bytes()}
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "tokenizer.json").write_bytes(carried.files["tokenizer.json"])
    ours, theirs = Tokenizer(config), Tokenizer(located(carried.tokenizer, tmp_path / "copy"))
    assert ours.pad_id == theirs.pad_id == 5
    assert ours.encode(["a picture"]).tolist() == theirs.encode(["a picture"]).tolist()


def test_a_checkpoint_contains_clips_merges_if_they_are_a_file(tmp_path: Path) -> None:
    config = TokenizerConfig(path=Path(shutil.copy(CLIP_MERGES, tmp_path / "mine.v1.txt.gz")))
    carried = carry(config, ARCHITECTURES["demo"])
    assert carried.tokenizer is not None
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "merges.txt.gz").write_bytes(carried.files["merges.txt.gz"])
    found = Tokenizer(located(carried.tokenizer, tmp_path / "copy"))
    assert found.encode(["a cat"]).tolist() == Tokenizer(TokenizerConfig()).encode(["a cat"]).tolist()
    assert carry(TokenizerConfig(), ARCHITECTURES["demo"]).files == {}


def test_the_checkpoints_tokenizer_is_used_before_the_original_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    found = load(run).require_tokenizer().config.path
    assert found == run / "checkpoints" / "step_000000001" / "tokenizer.json"
    found.write_text(found.read_text().replace("animals", "animels"))
    with pytest.raises(CheckpointError, match=r"has no usable checkpoint; .*tokenizer\.json"):
        load(run)


def test_a_checkpoint_without_a_tokenizer_file_still_loads(run: Path, tmp_path: Path) -> None:
    old = TokenizerConfig(kind="file", path=tmp_path / "own.json", context_length=7, pad_id=0)
    without(run, "tokenizer.json", tokenizer=old.to_dict(), images=None)
    assert load(run).require_tokenizer().config == old
    (tmp_path / "data").mkdir()
    (tmp_path / "own.json").rename(tmp_path / "data" / "own.json")
    found = load(run, beside=tmp_path / "data").require_tokenizer().config
    assert found == dataclasses.replace(old, path=tmp_path / "data" / "own.json")


def test_a_model_with_unsupported_image_settings_is_refused(run: Path, tmp_path: Path) -> None:
    saved = open_saved(run)
    assert saved is not None
    assert saved.notes.images is not None
    assert set(saved.notes.images) == {"size", "resize_mode", "interpolation", "mean", "std"}
    other = {**saved.notes.images, "interpolation": "bilinear"}
    with pytest.raises(UserError, match=r"interpolation 'bilinear', and this version of prolip prepares .* 'bicubic'"):
        check_image_settings(other, ARCHITECTURES["demo"], "x")
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "inference.json").read_text())
    (tmp_path / "out" / "inference.json").write_text(json.dumps({**content, "images": other}))
    without(run, images=other)
    for source in ("run", "out"):
        with pytest.raises(UserError, match="interpolation 'bilinear'"):
            load(tmp_path / source)


DEEP = {"vision_cfg": {"layers": 10**9, "width": 32}, "text_cfg": {"width": 32, "heads": 2}, "embed_dim": 32}


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"step": "7"}, r"step is '7': it must be int"),
        ({"world_size": True}, r"world_size is True: it must be int"),
        ({"elapsed_s": None}, r"elapsed_s is None: it must be float"),
        ({"cursor": [1]}, r"cursor is \[1\]: it must be dict"),
        ({"config": 5}, r"config is 5: it must be str"),
        ({"keep_ratio": "half"}, r"keep_ratio is 'half': it must be float or None"),
        ({"images": [1]}, r"images is \[1\]: it must be dict or None"),
        ({"tokenizer": {"kind": "file"}}, r"does not hold the settings of a tokenizer: KeyError\('path'\)"),
        ({"model_config": [3]}, r"model_config is \[3\]: it must be dict"),
        ({"model_config": {"embed_dim": 32}}, r"vision_cfg is missing"),
        ({"model_config": DEEP, "images": None}, r"vision.layers is 1,000,000,000 in the configuration, but"),
    ],
)
def test_inference_notes_that_are_malformed_are_refused_by_name(
    run: Path, tmp_path: Path, notes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    without(run, **notes)
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert re.search(rf"^prolip export: .*step_000000001: (run\.json:? )?{message}", told), told
    assert len(told.splitlines()) == 1


def test_an_exported_folder_has_all_inference_settings_of_the_run(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    shutil.rmtree(run)
    (tmp_path / "own.json").unlink()
    assert main(["export", str(tmp_path / "out"), "--out", str(tmp_path / "again")]) == 0
    one, two = (read_settings(tmp_path / name / "inference.json") for name in ("out", "again"))
    assert one == two
    assert one.images["size"] == image_settings(ARCHITECTURES["demo"])["size"]
    assert one.keep_ratio is not None
    ids = [load(tmp_path / name).require_tokenizer().encode(["a picture of food"]) for name in ("out", "again")]
    assert ids[0].tolist() == ids[1].tolist()
    assert ids[0][0, -1] == 0  # the run's padding
    (tmp_path / "again" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"again has no tokenizer\.json, which its inference\.json names"):
        load(tmp_path / "again").require_tokenizer()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tokenizer": 3, "images": {}, "keep_ratio": 1}', "[" * 100_000])
def test_an_invalid_inference_json_is_named(run: Path, tmp_path: Path, content: str) -> None:
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    (tmp_path / "out" / "inference.json").write_text(content)
    with pytest.raises(UserError, match=r"inference\.json (is not JSON|is nested|does not hold)"):
        load(tmp_path / "out")
