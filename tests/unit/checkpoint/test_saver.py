"""Checkpoints are whole or absent; old ones are removed, and the best one is kept."""

import dataclasses
import os
import time

import pytest
from tests.support.checkpoints import NOTES, save, tensors
from tests.support.untrained_run import ALONE

from prolip.checkpoint import (
    Best,
    CheckpointError,
    Saver,
    checkpoint_path,
    find_latest,
    list_checkpoints,
    load_checkpoint,
    open_saved,
    read_best,
)
from prolip.checkpoint.folder import mark_best

# ---- What stays ----


def test_only_the_newest_are_kept_and_partial_saves_are_deleted(tmp_path):
    (tmp_path / "step_000000001.partial").mkdir()
    assert find_latest(tmp_path) is None
    save(tmp_path, 5, 20, 100, keep=2)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 100), checkpoint_path(tmp_path, 20)]
    assert sorted(tmp_path.iterdir()) == sorted(list_checkpoints(tmp_path))


def test_the_best_checkpoint_is_kept_and_opened_as_best(tmp_path):
    assert read_best(tmp_path) is None
    save(tmp_path, 10, best=0.25)
    save(tmp_path, 20, 30, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000000030", "step_000000010"]
    assert read_best(tmp_path) == (10, Best(metric="recall", value=0.25))
    opened = open_saved(tmp_path / "best")
    assert opened.step == 10
    save(tmp_path, 40, keep=1, best=0.5)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000000040"]
    assert read_best(tmp_path) == (40, Best(metric="recall", value=0.5))


def test_the_best_checkpoint_is_found_again_when_a_run_resumes_from_it(tmp_path):
    save(tmp_path, 10, best=0.25)
    save(tmp_path, 20, best=0.5)
    mark_best(checkpoint_path(tmp_path, 10))  # the process died before it moved the link
    Saver(tmp_path, ALONE, keep=2, after=20)
    assert read_best(tmp_path) == (20, Best(metric="recall", value=0.5))
    Saver(tmp_path, ALONE, keep=2, after=10)  # the newest was damaged, and is set aside
    assert read_best(tmp_path) == (10, Best(metric="recall", value=0.25))


# ---- Saves that fail ----


def wait_by_checking(saver):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        saver.check()
        time.sleep(0.001)


def test_a_failed_save_is_raised_at_the_next_step_and_leaves_no_checkpoint(tmp_path, monkeypatch):
    whole = save(tmp_path, 1)

    def full_disk(descriptor):
        raise OSError("no space left")

    saver = Saver(tmp_path, ALONE, keep=1, after=1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        saver.save(dataclasses.replace(NOTES, step=2), tensors(2))
        with pytest.raises(CheckpointError, match="rank 0: no space left"):
            wait_by_checking(saver)
    assert list_checkpoints(tmp_path) == [whole]
    assert load_checkpoint(save(tmp_path, 2)).step == 2


def save_nowhere(tmp_path, ended_by):
    (tmp_path / "file").write_text("")
    with Saver(tmp_path / "file", ALONE, keep=1) as saver:
        saver.save(NOTES, tensors(7))
        if ended_by is not None:
            raise ended_by


def test_closing_waits_for_the_last_save_and_keeps_the_runs_error(tmp_path, caplog):
    with pytest.raises(CheckpointError, match="step_000000007 could not be saved"):
        save_nowhere(tmp_path, None)
    assert not caplog.text
    with pytest.raises(KeyError):
        save_nowhere(tmp_path, KeyError())
    assert "step_000000007 could not be saved" in caplog.text
