"""Three ranks, killed exactly while they start, validate or save: the same command ends with the same bits."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.ranks import Job
from tests.support.small_training import same_weights

PROGRAM = str(Path(__file__).parent / "programs" / "paused_training.py")
UNPAUSED = (PROGRAM, "start", "none")
FLAGS = ("--batch_size", "12", "--samples_seen", "144", "--checkpoint_every", "4", "--keep_checkpoints", "1")
"""12 steps. The first validation comes after step 8."""
Kill = Callable[[Job, Path], None]


@pytest.fixture(scope="module")
def unharmed(watched):
    """The name of a run that nobody kills."""
    name = "shared/unharmed"
    watched.launch(name, *FLAGS, processes=3, program=UNPAUSED)
    return name


def kill_all(job, folder):
    """SIGKILL to all ranks, as a scheduler kills a job or the kernel a process group."""
    job.kill()
    assert job.wait(1) == [-signal.SIGKILL] * 3


def terminate(job, folder):
    """SIGTERM to all ranks, as torchrun forwards it. A run that takes steps saves and ends; one that starts ends."""
    takes_steps = saved_steps(folder) != []
    for rank in range(3):
        job.send(rank, signal.SIGTERM)
    (folder / "go").touch()
    assert job.wait(60) == ([0] * 3 if takes_steps else [-signal.SIGTERM] * 3), job.told()
    if takes_steps:
        # A step tells all ranks, and the next one is the last. Step 8 is evaluated within it, but saved during step 9.
        last = 9 if "validation" in folder.name else 10
        assert saved_steps(folder) == [last]
        assert f"SIGTERM at step {last}, saved: run the same command again to resume" in job.told()


def kill_one(job, folder):
    """SIGKILL to one rank of three. The others end within half a minute, and at least one says why."""
    job.send(1, signal.SIGKILL)
    ended = job.wait(30)
    assert ended[1] == -signal.SIGKILL
    assert {ended[0], ended[2]} <= {1, 2}, job.told()
    assert re.search(r"^prolip train: rank [02](: | failed\n)", job.told(), re.MULTILINE), job.told()


def saved_steps(folder):
    """Steps of the complete checkpoints, newest first."""
    found = [re.fullmatch(r"step_(\d+)", path.name) for path in (folder / "checkpoints").glob("*")]
    return sorted((int(name[1]) for name in found if name), reverse=True)


def measured(lab, name):
    """The losses and the results of validation by their step, without times."""
    rows = [row for row in lab.rows(name) if row["step"] in {4, 8, 12}]
    return {
        (row["step"], key): value
        for row in rows
        for key, value in row.items()
        if key == "loss" or (key.startswith("val/") and not key.endswith("/seconds"))
    }


@pytest.mark.parametrize(
    ("kill", "moments"),
    [
        (kill_all, {"start": [], "validation": [4], "saving": [4], "pruning": [8, 4]}),
        (kill_one, {"start": [], "validation": [4], "saving": [4]}),
        (terminate, {"start": [], "validation": [4]}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value.__name__,
)
def test_a_run_killed_at_several_moments_resumes_to_the_same_bits(watched, unharmed, kill, moments):
    """At each moment it has checkpoints of such steps, from the newest of which it goes on to the next one."""
    name = f"killed-{kill.__name__}-{'-'.join(moments)}"
    folder = watched.folder / name
    for moment, saved in moments.items():
        rank = "0" if moment == "pruning" else "1"  # rank 0 alone deletes checkpoints
        with watched.start(name, *FLAGS, processes=3, program=(PROGRAM, moment, rank)) as job:
            job.wait_for(watched.has(name, "paused"))
            if saved:
                job.wait_for(lambda: saved_steps(folder))  # step 4 is saved in the background
            assert saved_steps(folder) == saved, moment
            assert bool(watched.has(name, "checkpoints/step_*8.partial")()) == (moment == "saving"), moment
            kill(job, folder)
        for file in ("paused", "go"):
            (folder / file).unlink(missing_ok=True)
    watched.launch(name, *FLAGS, processes=3, program=UNPAUSED)
    assert same_weights(watched.latest(name), watched.latest(unharmed))
    assert measured(watched, name) == measured(watched, unharmed)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_000000012"]
