"""Bad samples are counted; threads are joined; nothing hangs."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.support.shards import config, contents, encoded, members, write_tar

from prolip.data import (
    BatchLoader,
    DataError,
)

# ---- bad samples ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """18 good samples, one that is no image, one without a caption."""
    path = tmp_path_factory.mktemp("spoilt") / "spoilt.tar"
    good = [entry for index in range(18) for entry in members(f"k{index}", (index, 0, 0))]
    write_tar(path, [*good, ("bad.png", b"no image"), ("bad.txt", b"text"), ("mute.png", encoded((0, 0, 0)))])
    return str(path)


def test_too_many_bad_samples_are_an_error(spoilt):
    loader = BatchLoader(config(spoilt, last_batch="keep", max_bad_fraction=0.05))
    with pytest.raises(DataError, match=r"2 of 20 samples .*max_bad_fraction = 0.05.*spoilt.tar: sample "):
        contents(loader)


def test_a_damaged_shard_is_warned_about_and_used_up_to_the_damage(shards, tmp_path, caplog):
    whole = Path(shards.replace("{000..001}", "000")).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2 + 100])
    with caplog.at_level("WARNING", "prolip.data"):
        loader = BatchLoader(config(str(tmp_path / "cut.tar"), last_batch="keep", max_bad_fraction=1, shuffle_window=0))
    assert "byte " in caplog.text
    assert "the archive is truncated" in caplog.text
    keys = [key for batch in loader for key in batch.keys]
    assert keys == [f"s0k{index}" for index in range(len(keys))]
    assert 2 <= len(keys) <= 5
    assert loader.stats().bad["archive"] == 1


# ---- endings --------------------------------------------------------------------------------------------------------


def assert_loader_threads(expected):
    """Threads of loaders in this process, by the name that each gives itself when it begins to run."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted by way of /proc")
    deadline = time.monotonic() + 10
    while True:
        names = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
        found = sum(name.startswith("prolip-") for name in names)
        if found == expected:
            return
        assert time.monotonic() < deadline, names
        time.sleep(0.01)


def test_threads_are_shared_among_local_ranks(shards, monkeypatch):
    for local_ranks, expected in ((1, len(os.sched_getaffinity(0))), (4096, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local_ranks))
        with BatchLoader(config(shards, num_epochs=None)) as loader:
            batches = iter(loader)
            next(batches)
            assert_loader_threads(expected)


def test_ctrl_c_ends_the_wait_for_a_batch(tmp_path):
    """While a thread is in Python code."""
    code = """
    import sys, threading
    import prolip.data.tokenizer
    from prolip.data import BatchLoader, LoaderConfig
    release = threading.Event()
    # The tokenizer's cleaner never returns, so no batch ever comes.
    prolip.data.cleaning.clean_lower = lambda captions: release.wait(2) and captions
    batches = iter(BatchLoader(LoaderConfig(shards=(sys.argv[1],), batch_size=4, image_size=8, num_epochs=None)))
    print("ready", flush=True)
    try:
        next(batches)
    except KeyboardInterrupt:
        release.set()
        sys.exit(7)
    """
    write_tar(tmp_path / "slow.tar", [entry for index in range(8) for entry in members(f"é{index}", (0, 0, 0))])
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path / "slow.tar")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 7, process.communicate()
