"""A store accepts requests and never answers: a signal still stops a run soon, and nothing is lost."""

import signal
import threading
import time

import pytest
from tests.support.http_servers import answering, send_file
from tests.support.small_training import SHORT, same_weights, write_shard

from prolip.data import StoreConfig, write_index

SHARDS = "eighth-{0..7}.tar"
FLAGS = (*SHORT, "--checkpoint_every", "1000", "--log_every", "1")
FLAGS += ("--data.shuffle_window", "16", "--data.store.connections", "1")
"""A step of one process reads two of the shards, which are requested in this order."""


class Store:
    """A server of a folder's files that answers some requests, and then no more."""

    def __init__(self):
        self.answers, self.address, self.closed = 1000, "", threading.Event()

    def answer(self, request):
        self.answers -= 1
        if self.answers < 0:
            self.closed.wait()
        else:
            send_file(request)

    def wait_until_silent(self, job, rows):
        """Returns when the run has no batch left and waits for the store."""
        job.wait_for(lambda: self.answers < 0 and rows.exists())
        before = None
        while before != (before := rows.read_text()):
            time.sleep(1)


@pytest.fixture
def store(lab):
    for eighth in range(8):
        write_shard(lab.folder / f"eighth-{eighth}.tar", range(8 * eighth, 8 * eighth + 8))
    store = Store()

    def answer(request):
        store.answer(request)

    with answering(answer, lab.folder) as store.address:
        yield store
        store.closed.set()


def test_a_run_that_waits_for_a_silent_store_stops_at_the_first_signal(lab, store, tmp_path):
    shards, index = f"{store.address}/{SHARDS}", tmp_path / "remote.index"
    write_index([shards], index, 1, StoreConfig())
    store.answers = 5
    with lab.start("silent", *FLAGS, "--data.shards", shards, "--data.index", str(index), processes=1) as job:
        store.wait_until_silent(job, lab.folder / "silent" / "metrics.jsonl")
        job.send(0, signal.SIGINT)
        assert job.wait(10) == [130], job.told()
    stopped = lab.latest("silent").step
    assert lab.rows("silent")[-1]["step"] == stopped > 0
    assert f"SIGINT at step {stopped}, saved: run the same command again to resume" in job.told()
    local = ("--data.shards", str(lab.folder / SHARDS))
    assert lab.here("silent", *FLAGS, *local) == lab.here("heard", *FLAGS, *local) == 0
    assert same_weights(lab.latest("silent"), lab.latest("heard"))
