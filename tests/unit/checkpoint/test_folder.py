"""Damaged and hostile checkpoints are refused, and an I/O error is not damage."""

import errno
import os
import pickle
import shutil
import time

import pytest
import torch
from tests.support.checkpoints import begin, cut_short, flip_a_bit, largest, save
from tests.support.refusals import refusal_of
from tests.support.untrained_run import ALONE
from torch.distributed.checkpoint import FileSystemReader

from prolip.checkpoint import CheckpointError, StorageError, agree_on_checkpoint, find_latest, load_checkpoint
from prolip.checkpoint.folder import Manifest, commit, partial_path, record

DAMAGES = {
    "a flipped bit": lambda path: flip_a_bit(largest(path)),
    "a cut file": lambda path: cut_short(largest(path)),
    "a lost file": lambda path: (path / ".metadata").unlink(),
    "damaged notes": lambda path: flip_a_bit(path / "run.json"),
    "a cut manifest": lambda path: cut_short(path / "manifest.json"),
    "another manifest": lambda path: (path / "manifest.json").write_text("[]"),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, name):
    newest = save(tmp_path, 1, 2)
    DAMAGES[name](newest)
    with refusal_of(str(newest), CheckpointError):
        load_checkpoint(newest)
    found = find_latest(tmp_path)
    assert found.step == 1
    assert begin(tmp_path, "auto") == 1
    save(tmp_path, 2, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {"step_000000002", "aside_000000002"}


def test_a_run_with_only_damaged_checkpoints_does_not_restart(tmp_path):
    for path in (save(tmp_path, 1), save(tmp_path, 2)):
        for file in path.iterdir():
            file.write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    with refusal_of(str(tmp_path), CheckpointError):
        agree_on_checkpoint(tmp_path, "auto", ALONE)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("times", [3, 99])
def test_a_storage_error_is_retried_and_never_taken_for_damage(tmp_path, monkeypatch, times):
    newest = save(tmp_path, 1, 2)
    verify, left, pauses = Manifest.verify, [OSError(errno.EIO, "Input/output error")] * times, []

    def verify_or_fail(manifest):
        if left:
            raise left.pop()
        verify(manifest)

    monkeypatch.setattr(Manifest, "verify", verify_or_fail)
    monkeypatch.setattr(time, "sleep", pauses.append)
    if times == 3:
        assert begin(tmp_path, "auto") == 2
    else:
        with refusal_of(str(newest), StorageError):
            begin(tmp_path, "auto")
    assert len(pauses) == 3


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path):
    manifest = save(tmp_path, 1) / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(0, len(whole) * 8, 5):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        manifest.write_bytes(content)
        if content.split() != whole.split():  # white space says nothing
            with pytest.raises(CheckpointError):
                load_checkpoint(manifest.parent)


class Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["metadata", "tensors"])
def test_code_in_a_strangers_checkpoint_is_not_run(tmp_path, where):
    path, harmed = save(tmp_path, 1), tmp_path / "harmed"
    metadata = FileSystemReader(path).read_metadata()
    if where == "metadata":
        (path / ".metadata").write_bytes(pickle.dumps(Harm(harmed)))
    else:
        torch.save(Harm(harmed), path / "__0_0.distcp")
        for about in metadata.storage_data.values():
            about.offset, about.length = 0, (path / "__0_0.distcp").stat().st_size
        (path / ".metadata").write_bytes(pickle.dumps(metadata))
    files = {file.name: record(file) for file in path.iterdir() if file.name != "manifest.json"}
    shutil.move(path, partial_path(path))
    commit(path, files, None)  # as an attacker would
    with refusal_of(str(path), CheckpointError):
        load_checkpoint(path).model()
    assert not harmed.exists()
