"""One rank of several fails: its traceback is printed, and all processes end."""

import time
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).parent / "programs" / "failing_training.py")
FLAGS = ("--batch_size", "12", "--samples_seen", "1200000", "--checkpoint_every", "4")


@pytest.mark.parametrize("place", ["step", "data", "saving"])
def test_a_failing_rank_logs_the_reason_and_all_ranks_end(watched, place):
    folder = watched.folder / f"failing-{place}"
    with watched.start(folder.name, *FLAGS, processes=3, program=(PROGRAM, place)) as job:
        deadline = time.monotonic() + 120
        while not (folder / "failing").exists():
            assert time.monotonic() < deadline, job.told()
            time.sleep(0.02)
        ended = job.wait(30)
    told = job.told_by(1)
    if place == "data":
        assert ended[1] == 2, job.told()
        assert told == "prolip train: rank 1: rank 1 has no shard\n"
    else:
        assert ended[1] == 1, job.told()
        assert "prolip train: rank 1 failed\nTraceback (most recent call last):\n" in told
        assert told.endswith("RuntimeError: rank 1 broke\n")
    # The others end because of it, whichever way they notice.
    for other in (0, 2):
        assert ended[other] in {1, 2}, job.told()
