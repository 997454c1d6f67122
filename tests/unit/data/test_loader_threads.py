"""Loaders used from several threads, and in a spawned process."""

import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from tests.support.http_servers import answering, send_file
from tests.support.shards import FULL, config, contents, keys

from prolip.data import BatchLoader


def test_several_threads_can_each_have_a_loader(shards):
    """The batches of each are those that it gives alone."""
    settings = config(shards, **FULL)
    expected = contents(BatchLoader(settings))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: contents(BatchLoader(settings)), range(8)):
            assert found == expected


def test_an_iterator_used_by_two_threads_at_once_is_refused(shards):
    """Python itself refuses it; nothing is lost: the thread that waits gets its batch."""
    asked, answer = threading.Event(), threading.Event()

    def late_file(request):
        asked.set()
        answer.wait(30)
        send_file(request)

    with answering(late_file, Path(shards).parent) as address, ThreadPoolExecutor(1) as pool:
        remote = config(f"{address}/000.tar", last_batch="keep", shuffle_window=0)
        with BatchLoader(remote) as loader:
            batches = iter(loader)
            first = pool.submit(next, batches)
            assert asked.wait(30)
            with pytest.raises(ValueError, match="generator already executing"):
                next(batches)
            answer.set()
            assert first.result(timeout=30).keys == ["s0k0", "s0k1", "s0k2", "s0k3"]


def test_a_config_can_be_sent_to_a_spawned_process_but_a_loader_cannot(shards):
    """What crosses is the configuration."""
    settings = config(shards, **FULL)
    with BatchLoader(settings) as loader:
        next(iter(loader))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            assert pool.submit(keys, settings).result(timeout=120) == keys(settings)
        with pytest.raises(TypeError, match=r"cannot pickle 'prolip\._core\.BatchLoader' object"):
            pickle.dumps(loader)
