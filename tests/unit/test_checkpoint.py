"""Checkpoints: whole or absent, damaged ones rejected with the reason, old ones removed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from prolip.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_path,
    find_latest,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


def make(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weights = {"weight": torch.randn(64, 64, generator=generator)}
    return Checkpoint(
        step=step,
        model=weights,
        model_config={"embed_dim": 8, "vision_cfg": {"layers": 1}},
        optimizer={"state": {0: {"step": torch.tensor(float(step))}}, "param_groups": [{"betas": (0.9, 0.98)}]},
        cursor={"epoch": 2, "legs": ({"world_size": 2, "batch_size": 8, "steps": step},)},
        rng=[{"cpu": torch.get_rng_state()}],
        elapsed_s=1.5,
        config='name = "x"\n',
    )


def test_what_is_saved_loads_equal(tmp_path: Path) -> None:
    saved = make(7)
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved, keep=1))
    assert torch.equal(loaded.model["weight"], saved.model["weight"])
    assert torch.equal(loaded.rng[0]["cpu"], saved.rng[0]["cpu"])
    for name in ("step", "model_config", "cursor", "elapsed_s", "config"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert loaded.optimizer["param_groups"] == saved.optimizer["param_groups"]


def test_only_the_newest_are_kept_and_no_temporary_stays(tmp_path: Path) -> None:
    (tmp_path / "step_000000001.tmp").write_bytes(b"half")
    for step in (5, 20, 100):
        save_checkpoint(tmp_path, make(step), keep=2)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 100), checkpoint_path(tmp_path, 20)]
    assert sorted(tmp_path.iterdir()) == sorted(list_checkpoints(tmp_path))


def test_a_save_that_fails_leaves_nothing_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = save_checkpoint(tmp_path, make(1), keep=1)

    def full_disk(content: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(tmp_path, make(2), keep=1)
    assert list_checkpoints(tmp_path) == [whole]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_file(path: Path) -> None:
    torch.save({"epoch": 1}, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_bit, "the checksum of .* is wrong"),
        (cut_short, "cannot be read"),
        (empty, "cannot be read"),
        (another_file, "not a checkpoint of a run"),
    ],
)
def test_a_damaged_file_is_rejected_with_the_reason_and_the_one_before_is_used(
    tmp_path: Path, damage: object, reason: str
) -> None:
    save_checkpoint(tmp_path, make(1), keep=3)
    newest = save_checkpoint(tmp_path, make(2), keep=3)
    assert callable(damage)
    damage(newest)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(newest)
    found, rejected = find_latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(rejected) == 1
    assert str(newest) in rejected[0]


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert find_latest(tmp_path / "absent") == (None, [])


def test_the_file_holds_nothing_but_plain_containers_and_tensors(tmp_path: Path) -> None:
    content = torch.load(save_checkpoint(tmp_path, make(1), keep=1), weights_only=True)
    assert content.keys() == {field.name for field in fields(Checkpoint)}
