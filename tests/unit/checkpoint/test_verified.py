"""Damaged, hostile and replaced checkpoints are refused with the reason."""

from __future__ import annotations

import dataclasses
import errno
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.checkpoints import begin, cut_short, flip_a_bit, largest, save, tensors
from tests.support.untrained_run import ALONE
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from prolip.checkpoint import (
    Checkpoint,
    CheckpointError,
    StorageError,
    agree_on_checkpoint,
    find_latest,
    load_checkpoint,
    open_saved,
    read_weights,
)
from prolip.checkpoint.folder import commit, partial_path, record
from prolip.checkpoint.tensors import read_into
from prolip.checkpoint.verified import CheckpointFiles

DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a flipped bit": (lambda path: flip_a_bit(largest(path)), r"__0_0.distcp is damaged: its checksum is wrong"),
    "a cut file": (lambda path: cut_short(largest(path)), r"__0_0.distcp has [\d,]+ bytes instead of [\d,]+"),
    "a lost file": (lambda path: (path / ".metadata").unlink(), r"\.metadata is missing"),
    "a folder for a file": (lambda path: [(path / "run.json").unlink(), (path / "run.json").mkdir()][0], "run.json"),
    "damaged notes": (lambda path: flip_a_bit(path / "run.json"), "run.json is damaged"),
    "a damaged manifest": (
        lambda path: flip_a_bit(path / "manifest.json"),
        "manifest.json (is damaged|cannot be read)",
    ),
    "a cut manifest": (lambda path: cut_short(path / "manifest.json"), "manifest.json cannot be read"),
    "another manifest": (lambda path: [(path / "manifest.json").write_text("[]"), None][1], "manifest.json cannot be"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
    "nothing": (lambda path: [shutil.rmtree(path), path.mkdir()][1], "manifest.json is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_rejected_with_the_reason_and_the_one_before_is_used(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, reason = DAMAGES[name]
    newest = save(tmp_path, 1, 2)
    damage(newest)
    with pytest.raises(CheckpointError, match=f"{newest}: {reason}"):
        load_checkpoint(newest)
    found, rejected = find_latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(rejected) == 1
    # A run goes on from there, and its own checkpoints count from then on, not the newer number.
    found = agree_on_checkpoint(tmp_path, "auto", ALONE)
    assert found is not None
    assert found.step == 1
    assert f"checkpoint rejected: {newest}: " in caplog.text
    save(tmp_path, 2, keep=1)
    assert "renamed to aside_000000002" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"step_000000002", "aside_000000002"}


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_again(tmp_path: Path) -> None:
    one, other = save(tmp_path, 1), save(tmp_path, 2)
    for path in (one, other):
        for file in path.iterdir():
            file.write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=rf"none is usable: {other}: manifest.* cannot .*; {one}: manifest"):
        agree_on_checkpoint(tmp_path, "auto", ALONE)
    assert sorted(tmp_path.rglob("*")) == before


def failing(times: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Lets the first verifications meet an error of the storage; returns the pauses between attempts."""
    verify, left, pauses = CheckpointFiles.verify, [OSError(errno.EIO, "Input/output error")] * times, []

    def verify_or_fail(files: CheckpointFiles) -> None:
        if left:
            raise left.pop()
        verify(files)

    monkeypatch.setattr(CheckpointFiles, "verify", verify_or_fail)
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_a_passing_error_of_the_storage_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, 2)
    pauses = failing(3, monkeypatch)
    found = agree_on_checkpoint(tmp_path, "auto", ALONE)
    assert found is not None
    assert found.step == 2
    assert pauses == sorted(pauses)
    assert len(pauses) == 3


def test_a_lasting_error_of_the_storage_ends_the_run_and_rejects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = save(tmp_path, 1, 2)
    failing(99, monkeypatch)
    with pytest.raises(StorageError, match=rf"{newest} could not be read 4 times .* Input/output error"):
        agree_on_checkpoint(tmp_path, "auto", ALONE)

    def list_nothing(folder: Path) -> list[str]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "listdir", list_nothing)
    with pytest.raises(StorageError, match=rf"{tmp_path} could not be read"):  # not "no checkpoint: start at step 0"
        agree_on_checkpoint(tmp_path, "auto", ALONE)
    monkeypatch.undo()
    assert begin(tmp_path, "auto") == 2


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    manifest = save(tmp_path, 1) / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(0, len(whole) * 8, 5):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        manifest.write_bytes(content)
        if content.split() != whole.split():  # white space says nothing
            with pytest.raises(CheckpointError, match=r"manifest\.json"):
                load_checkpoint(manifest.parent)


def sign(path: Path) -> None:
    """Makes the files of a checkpoint those of its manifest, as an attacker would."""
    files = {file.name: record(file) for file in path.iterdir() if file.name != "manifest.json"}
    shutil.rmtree(partial_path(path), ignore_errors=True)
    path.rename(partial_path(path))
    commit(path, files, None)


def test_json_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    path, deep = save(tmp_path, 1), "[" * 100_000
    (path / "run.json").write_text(deep)
    sign(path)
    with pytest.raises(CheckpointError, match=r"step_000000001: run\.json cannot be read: "):
        load_checkpoint(path)
    (path / "manifest.json").write_text(deep)
    with pytest.raises(CheckpointError, match=r"step_000000001: manifest\.json cannot be read: "):
        load_checkpoint(path)


def test_metadata_that_names_code_is_not_run(tmp_path: Path) -> None:
    path = save(tmp_path, 1)

    class Harm:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path}/harmed",)

    (path / ".metadata").write_bytes(pickle.dumps(Harm()))
    sign(path)
    with pytest.raises(CheckpointError, match=r"it names (posix|os)\.system"):
        load_checkpoint(path).model()
    assert not (tmp_path / "harmed").exists()


class Marked:
    """What no weights need."""


@pytest.mark.parametrize("what", ["more bytes than there are", "another dtype", "code", "another file"])
def test_a_strangers_checkpoint_is_refused_with_the_reason(tmp_path: Path, what: str) -> None:
    path = save(tmp_path, 1)
    metadata = FileSystemReader(path).read_metadata()
    about = metadata.state_dict_metadata["model.weight"]
    assert isinstance(about, TensorStorageMetadata)
    (index,) = (index for index in metadata.storage_data if index.fqn == "model.weight")
    wanted = {"weight": torch.zeros(64, 64)}
    if what == "more bytes than there are":
        about.size = torch.Size([10**6, 10**6])
        reason = r"\.metadata names tensors of 4,000,000,000,0\d\d bytes, but the files have"
    elif what == "another dtype":
        wanted = {"weight": torch.zeros(64, 64, dtype=torch.int64)}
        reason = r"model\.weight is torch\.float32 instead of torch\.int64"
    elif what == "code":
        torch.save(Marked(), path / "__0_0.distcp")
        size = (path / "__0_0.distcp").stat().st_size
        os.truncate(path / "__0_0.distcp", 100_000)
        metadata.storage_data[index] = dataclasses.replace(metadata.storage_data[index], offset=0, length=size)
        reason = "its files hold something other than tensors"
    else:
        other = dataclasses.replace(metadata.storage_data[index], relative_path="../../../etc/passwd")
        metadata.storage_data[index] = other
        reason = r"\.metadata names passwd, which the manifest does not list"
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    sign(path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_into(load_checkpoint(path).files, {f"model.{name}": tensor for name, tensor in wanted.items()})
    assert "weights_only" not in str(caught.value)


# ---- Replaced during a load ----


def test_a_load_reads_the_checkpoint_that_it_opened_and_no_other(tmp_path: Path) -> None:
    save(tmp_path, 1, best=1.0)
    by_link, by_name = (open_saved(tmp_path / name) for name in ("best", "step_000000001"))
    save(tmp_path, 2, best=2.0)  # the link moves
    other = save(tmp_path / "other", 1)
    (tmp_path / "step_000000001").rename(tmp_path / "aside_000000001")
    other.rename(tmp_path / "step_000000001")  # another run's
    for saved in (by_link, by_name):
        assert saved is not None
        assert saved.step == 1
        assert torch.equal(saved.model()["weight"], tensors(1)["model.weight"])


def test_a_file_that_is_replaced_within_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    path, others = save(tmp_path, 1), save(tmp_path / "other", 2)
    saved = load_checkpoint(path)
    (path / "__0_0.distcp").unlink()
    shutil.copy(others / "__0_0.distcp", path)
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp has changed since it was verified"):
        saved.model()


def test_a_load_that_fails_because_the_folder_was_replaced_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = save(tmp_path, 1), save(tmp_path / "other", 1, 2)
    verify = CheckpointFiles.verify

    def replace_and_verify(files: CheckpointFiles) -> None:
        if other.exists():
            shutil.rmtree(path)
            other.rename(path)
        verify(files)

    monkeypatch.setattr(CheckpointFiles, "verify", replace_and_verify)
    assert torch.equal(load_checkpoint(path).model()["weight"], tensors(2)["model.weight"])
    flip_a_bit(largest(path))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path)


def test_windows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECTORY")
    with pytest.raises(CheckpointError, match="only Linux and macOS can read checkpoints of runs: export"):
        CheckpointFiles(tmp_path)


def test_weights_that_a_run_deletes_while_they_are_read_are_read_from_its_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = save(tmp_path / "checkpoints", 1).parent
    read = Checkpoint.model

    def save_and_read(saved: Checkpoint) -> dict[str, torch.Tensor]:
        if saved.step == 1:
            save(checkpoints, 2, keep=1)
        return read(saved)

    monkeypatch.setattr(Checkpoint, "model", save_and_read)
    found = read_weights(tmp_path)
    assert found is not None
    assert found[0].step == 2
    assert torch.equal(found[1]["weight"], tensors(2)["model.weight"])
