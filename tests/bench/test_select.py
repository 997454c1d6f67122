"""Time and memory of `prolip data select` for 500 million scores: `pytest -m bench tests/bench/test_select.py -s`."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.support.forked import Forked
from tests.support.made_scores import write_scores

from prolip.store.selection import read_selection

PART = 100_000
"""Rows of a part at full size: ten shards' worth, so that the parts are written in minutes."""
_SELECT = """
import re, resource, sys, threading
from pathlib import Path
from prolip.cli import main
peak, ended = 0, threading.Event()
def watch():  # without the pages of temporary files, which the system can drop
    global peak
    while not ended.wait(0.02):
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
watching = threading.Thread(target=watch)
watching.start()
status = main(["data", "select", "--embeddings", sys.argv[1], "--keep_share", ".3", "--out", sys.argv[2]])
ended.set()
watching.join()
print(peak / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_utime)
sys.exit(status)
"""


def uncertainties(number):
    return np.random.default_rng(number).lognormal(-3, 0.3, PART).astype(np.float32)


def equal(number):
    return np.full(PART, 0.05, np.float32)


@pytest.mark.bench
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scores", [uncertainties, equal])
def test_memory_does_not_grow_with_the_rows(tmp_path, full, scores):
    peaks = []
    for parts in (500, 5000) if full else (2, 3):
        write_scores(tmp_path / "out", (scores(number)[: PART if full else 50] for number in range(parts)))
        begun = time.perf_counter()
        words = [sys.executable, "-c", _SELECT, str(tmp_path / "out"), str(tmp_path / "chosen")]
        program = (subprocess.Popen if full else Forked)(words, stdout=subprocess.PIPE)
        assert program.stdout is not None
        with program.stdout as told:
            peak, cpu = told.read().split()[-2:]
            peaks.append(float(peak))
        assert program.wait() == 0
        seconds = time.perf_counter() - begun
        rows = parts * (PART if full else 50)
        assert sum(len(one.rows) for one in read_selection(tmp_path / "chosen")) == int(0.3 * rows)
        size = (tmp_path / "chosen").stat().st_size
        print(
            f"{scores.__name__}, {rows:,} rows: {seconds:.1f} s, {float(cpu):.0f} s of CPU, {peaks[-1]:.2f} GiB, "
            f"{size / 1e6:.1f} MB selected"
        )
        shutil.rmtree(tmp_path / "out")
    assert not full or peaks[-1] < 2
