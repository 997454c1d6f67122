"""Checkpoints: whole or absent, damaged ones rejected with the reason, old ones removed, the best one kept."""

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
from tests.support.untrained_run import ALONE
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from prolip.checkpoint import (
    Best,
    CheckpointError,
    Notes,
    Saver,
    StorageError,
    agree_on_checkpoint,
    checkpoint_path,
    find_latest,
    list_checkpoints,
    load_checkpoint,
    open_saved,
    read_best,
    rng_tensors,
    run_tensors,
)
from prolip.checkpoint.folder import commit, partial_path, record
from prolip.checkpoint.tensors import read_into
from prolip.checkpoint.verified import CheckpointFiles

NOTES = Notes(
    step=7,
    world_size=1,
    elapsed_s=1.1,
    cursor={"epoch": 2, "legs": [{"world_size": 2, "batch_size": 8, "steps": 3}]},
    config='name = "x"\n',
    model_config={"embed_dim": 8, "vision_cfg": {"layers": 1}},
    scaler={"scale": 65536.0},
)


def tensors(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"model.weight": torch.randn(64, 64, generator=generator), "model.scale": torch.tensor(step / 3)}


def save(folder: Path, *steps: int, keep: int = 9, best: float | None = None) -> Path:
    """The last of the checkpoints that are saved here."""
    reason = None if best is None else Best(metric="recall", value=best)
    with Saver(folder, ALONE, keep=keep, after=steps[0] - 1) as saver:
        for step in steps:
            saver.save(dataclasses.replace(NOTES, step=step), tensors(step), reason)
    return checkpoint_path(folder, step)


def test_what_is_saved_loads_equal(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, 7))
    assert loaded.notes == NOTES
    assert loaded.step == 7
    assert loaded.model().keys() == {"weight", "scale"}
    for name, tensor in loaded.model().items():
        assert torch.equal(tensor, tensors(7)[f"model.{name}"])
    assert loaded.average() == loaded.optimizer() == {}


def test_averaged_weights_are_those_to_infer_with(tmp_path: Path) -> None:
    averaged = torch.full((64, 64), 0.5)
    with Saver(tmp_path, ALONE, keep=1) as saver:
        saver.save(NOTES, tensors(7) | {"ema.weight": averaged})
    loaded = load_checkpoint(checkpoint_path(tmp_path, 7))
    assert torch.equal(loaded.weights()["weight"], averaged)
    assert torch.equal(loaded.weights()["scale"], tensors(7)["model.scale"])  # no parameter, so it has no average
    assert torch.equal(loaded.model()["weight"], tensors(7)["model.weight"])


class Net(nn.Module):
    """A model with a parameter that no gradient reaches at first."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 3)
        self.idle = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        mixed: Tensor = self.used(inputs) + torch.randn(3)
        return mixed.square().sum()


class Average:
    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: parameter.detach() / 2 for name, parameter in model.named_parameters()}

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.weights)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.weights = dict(state)


def make(seed: int) -> tuple[Net, torch.optim.Optimizer, Average]:
    torch.manual_seed(seed)
    model = Net()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trained, lr=0.1, fused=True), Average(model)


def train(model: Net, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(4)).backward()
        optimizer.step()


def test_a_restored_run_takes_the_same_steps(tmp_path: Path) -> None:
    model, optimizer, average = make(seed=0)
    train(model, optimizer, 3)
    with Saver(tmp_path, ALONE, keep=1) as saver:
        saver.save(NOTES, run_tensors(model, optimizer, average) | rng_tensors(ALONE))
        train(model, optimizer, 2)  # while it is written

    again, its_optimizer, its_average = make(seed=1)
    saved = load_checkpoint(checkpoint_path(tmp_path, 7))
    saved.restore(again, its_optimizer, its_average)
    saved.restore_rng(ALONE)
    assert again.idle not in its_optimizer.state  # as in the run that was saved: its first step is still to come
    assert all(torch.equal(its_average.weights[name], tensor) for name, tensor in average.weights.items())
    train(again, its_optimizer, 2)
    after, expected = run_tensors(again, its_optimizer), run_tensors(model, optimizer)
    assert after.keys() == expected.keys() > {"optimizer.used.weight.exp_avg", "model.frozen"}
    assert all(torch.equal(after[name], tensor) for name, tensor in expected.items())


def test_generators_are_not_restored_for_another_number_of_ranks(tmp_path: Path) -> None:
    with Saver(tmp_path, ALONE, keep=1) as saver:
        saver.save(dataclasses.replace(NOTES, world_size=2), tensors(7) | rng_tensors(ALONE))
    torch.manual_seed(9)
    before = torch.get_rng_state()
    load_checkpoint(checkpoint_path(tmp_path, 7)).restore_rng(ALONE)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model, optimizer, average = make(seed=0)
    with Saver(tmp_path, ALONE, keep=1) as saver:
        saver.save(NOTES, run_tensors(model, optimizer))
    saved = load_checkpoint(checkpoint_path(tmp_path, 7))
    with pytest.raises(CheckpointError, match=r"it has no tensor ema\.idle"):
        saved.restore(model, optimizer, average)
    model.used = nn.Linear(4, 2)
    with pytest.raises(CheckpointError, match=r"model\.used\.weight is \[3, 4\] instead of \[2, 4\]"):
        saved.restore(model, torch.optim.AdamW(model.parameters()))


# ---- What stays ----


def test_only_the_newest_are_kept_and_what_an_interrupted_save_left_goes(tmp_path: Path) -> None:
    (tmp_path / "step_000000001.partial").mkdir()
    assert find_latest(tmp_path) == (None, [])
    save(tmp_path, 5, 20, 100, keep=2)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 100), checkpoint_path(tmp_path, 20)]
    assert sorted(tmp_path.iterdir()) == sorted(list_checkpoints(tmp_path))


def test_the_best_stays_and_can_be_opened_by_that_name(tmp_path: Path) -> None:
    assert read_best(tmp_path) is None
    save(tmp_path, 10, best=0.25)
    save(tmp_path, 20, 30, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000000030", "step_000000010"]
    assert read_best(tmp_path) == (10, Best(metric="recall", value=0.25))
    opened = open_saved(tmp_path / "best")
    assert opened is not None
    assert opened.step == 10
    save(tmp_path, 40, keep=1, best=0.5)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000000040"]
    assert read_best(tmp_path) == (40, Best(metric="recall", value=0.5))


# ---- Saves that fail ----


def wait_by_checking(saver: Saver) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        saver.check()
        time.sleep(0.001)


def test_a_save_that_fails_is_told_at_the_next_step_and_leaves_nothing_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = save(tmp_path, 1)

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left")

    saver = Saver(tmp_path, ALONE, keep=1, after=1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        saver.save(dataclasses.replace(NOTES, step=2), tensors(2))
        with pytest.raises(CheckpointError, match=r"step_000000002 could not be saved: rank 0: no space left"):
            wait_by_checking(saver)
    assert list_checkpoints(tmp_path) == [whole]
    assert load_checkpoint(save(tmp_path, 2)).step == 2


def test_a_fault_of_ours_ends_the_save_on_all_ranks(tmp_path: Path) -> None:
    saver = Saver(tmp_path, ALONE, keep=1)
    saver.save(dataclasses.replace(NOTES, cursor={"epoch": object()}), tensors(7))  # no JSON
    with pytest.raises(CheckpointError, match=r"step_000000007 could not be saved: TypeError"):
        saver.wait()
    assert list_checkpoints(tmp_path) == []


def save_nowhere(tmp_path: Path, ended_by: Exception | None) -> None:
    (tmp_path / "file").write_text("")
    with Saver(tmp_path / "file", ALONE, keep=1) as saver:
        saver.save(NOTES, tensors(7))
        if ended_by is not None:
            raise ended_by


def test_the_last_save_is_waited_for_and_does_not_hide_what_ended_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CheckpointError, match="step_000000007 could not be saved"):
        save_nowhere(tmp_path, None)
    assert not caplog.text
    with pytest.raises(KeyError):
        save_nowhere(tmp_path, KeyError())
    assert "step_000000007 could not be saved" in caplog.text


# ---- Damage ----


def largest(path: Path) -> Path:
    return max(path.iterdir(), key=lambda file: file.stat().st_size)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


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


# ---- Where a run begins ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder of the checkpoints after 1, 2 and 3 steps, of which the last is the best."""
    folder = tmp_path / "run" / "checkpoints"
    save(folder, 1, 2)
    save(folder, 3, best=1.0)
    return folder


def begin(folder: Path, resume: str) -> int | None:
    found = agree_on_checkpoint(folder, resume, ALONE)
    return None if found is None else found.step


def test_auto_takes_the_newest(folder: Path, tmp_path: Path) -> None:
    assert begin(folder, "auto") == 3
    assert begin(tmp_path / "new", "auto") is None


def test_never_needs_a_folder_without_checkpoints(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'resume is "never", but .* holds step_000000003'):
        begin(folder, "never")
    assert begin(tmp_path / "new", "never") is None


def test_a_step_or_a_path_can_be_named_and_later_ones_are_set_aside(folder: Path) -> None:
    assert begin(folder, "2") == 2
    assert begin(folder, str(folder / "step_000000001")) == 1
    assert begin(folder, str(folder / "best")) == 3
    with Saver(folder, ALONE, keep=1, after=1):
        assert {path.name for path in folder.iterdir()} == {"step_000000001", "aside_000000002", "aside_000000003"}
    assert begin(folder, "auto") == 1


def test_another_runs_checkpoint_leaves_both_folders_alone(folder: Path, tmp_path: Path) -> None:
    before = sorted(folder.iterdir())
    assert begin(tmp_path / "new", str(folder / "step_000000002")) == 2
    assert begin(tmp_path / "new", str(folder.parent)) == 3
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("resume", "message"), [("9", "step_000000009 is not a checkpoint"), ("absent", "is not a checkpoint")]
)
def test_what_is_no_checkpoint_is_named(folder: Path, resume: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"resume is '{resume}': .*{message}"):
        begin(folder, resume)


def test_a_named_checkpoint_that_is_damaged_is_not_replaced_by_another(folder: Path) -> None:
    flip_a_bit(largest(folder / "step_000000002"))
    with pytest.raises(CheckpointError, match=r"step_000000002: __0_0.distcp is damaged"):
        begin(folder, "2")


@pytest.mark.parametrize("resume", ["1", "never"])
def test_after_a_restart_by_torchrun_the_newest_counts(
    folder: Path, tmp_path: Path, resume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert begin(folder, resume) == 3
    assert begin(tmp_path / "new", str(folder / "step_000000001")) == 1
