"""Which checkpoint a run resumes from."""

import pytest
from tests.support.checkpoints import begin, flip_a_bit, largest, save
from tests.support.refusals import refusal_of
from tests.support.untrained_run import ALONE

from prolip.checkpoint import CheckpointError, Saver


@pytest.fixture
def folder(tmp_path):
    """A run's folder of the checkpoints after 1, 2 and 3 steps, of which the last is the best."""
    folder = tmp_path / "run" / "checkpoints"
    save(folder, 1, 2)
    save(folder, 3, best=1.0)
    return folder


def test_resume_auto_uses_the_newest_checkpoint(folder, tmp_path):
    assert begin(folder, "auto") == 3
    assert begin(tmp_path / "new", "auto") is None


def test_resuming_at_a_step_or_path_sets_later_checkpoints_aside(folder):
    assert begin(folder, "2") == 2
    assert begin(folder, str(folder / "step_000000001")) == 1
    assert begin(folder, str(folder / "best")) == 3
    with Saver(folder, ALONE, keep=1, after=1):
        assert {path.name for path in folder.iterdir()} == {"step_000000001", "aside_000000002", "aside_000000003"}
    assert begin(folder, "auto") == 1


@pytest.mark.parametrize("resume", ["never", "9", "absent"])
def test_a_resume_value_that_cannot_be_followed_is_refused(folder, tmp_path, resume):
    with refusal_of("resume", CheckpointError):
        begin(folder, resume)
    assert begin(tmp_path / "new", "never") is None


def test_a_named_checkpoint_that_is_damaged_is_not_replaced_by_another(folder):
    flip_a_bit(largest(folder / "step_000000002"))
    with refusal_of(str(folder / "step_000000002"), CheckpointError):
        begin(folder, "2")


@pytest.mark.parametrize("count", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
@pytest.mark.parametrize("resume", ["1", "never"])
def test_a_restart_by_torchrun_or_slurm_uses_the_newest_checkpoint(folder, tmp_path, resume, count, monkeypatch):
    monkeypatch.setenv(count, "1")
    assert begin(folder, resume) == 3
    assert begin(tmp_path / "new", str(folder / "step_000000001")) == 1
