"""Remote shards without an index: opening sends no request, and batches are reproducible."""

import contextlib
import os
import time
from dataclasses import replace
from typing import Literal

import pytest
from tests.support import servers
from tests.support.http_servers import answering
from tests.support.images import encode, noise
from tests.support.refusals import refusal_of
from tests.support.remote_shards import assert_equal, batches
from tests.support.shards import encoded, write_tar

from prolip.data import AugmentConfig, BatchLoader, DataError, LoaderConfig, StoreConfig

SIZES = [9, 0, 14, 3, 21, 1, 8, 11, 5, 17, 2, 6]
PATTERN = "{000..011}.tar"
STORE = StoreConfig(connections=4, timeout_s=20)

LastBatch = Literal["drop", "pad", "keep"]


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    """Shards of very different lengths."""
    folder = tmp_path_factory.mktemp("shards")
    for shard, size in enumerate(SIZES):
        members = []
        for sample in range(size):
            members += [
                (f"{shard}-{sample}.png", encoded((shard * 20, sample * 10, 90), (10, 8))),
                (f"{shard}-{sample}.txt", f"{sample} of {shard}".encode()),
            ]
        write_tar(folder / f"{shard:03d}.tar", members)
    return folder


@pytest.fixture(scope="module")
def url(ragged, tmp_path_factory):
    with servers.nginx(ragged, tmp_path_factory.mktemp("nginx")) as url:
        yield f"{url}/{PATTERN}"


def _config(shards, last_batch, num_samples):
    return LoaderConfig(
        shards=(shards,),
        num_samples=num_samples,
        last_batch=last_batch,
        batch_size=5,
        image_size=8,
        augment=AugmentConfig(),
        seed=3,
        num_epochs=2,
        shuffle_window=12,
        num_threads=2,
        store=STORE,
    )


MODES = [
    pytest.param("drop", "once", 70, id="drop"),
    pytest.param("pad", "once", 70, id="pad"),
    pytest.param("keep", "once", None, id="keep"),
    pytest.param("drop", "resampled", 60, id="resampled"),
]


@pytest.mark.parametrize(("last_batch", "mode", "num_samples"), MODES)
def test_batches_do_not_depend_on_threads_server_or_stops(last_batch, mode, num_samples, ragged, url):
    config = replace(_config(url, last_batch, num_samples), mode=mode)
    for rank in range(2):
        whole = batches(config, rank, 2)
        assert {batch.cursor.epoch for batch in whole} == {0, 1}
        assert_equal(batches(replace(config, num_threads=1, prefetch_batches=1), rank, 2), whole)
        for stop in [0, len(whole) // 2]:
            resumed = batches(replace(config, num_threads=3), rank, 2, whole[stop].cursor)
            assert_equal(resumed, whole[stop + 1 :])
    # Where the shards lie is of no matter, nor that their bytes come slowly and in pieces.
    with answering(folder=ragged) as other, servers.FaultProxy(other, seed=1) as proxy:
        assert_equal(batches(replace(config, shards=(f"{proxy.url}/{PATTERN}",)), 1, 2), whole)


def test_opening_sends_no_request_and_unknown_lengths_are_refused():
    nowhere = f"http://127.0.0.1:{servers.free_port()}/{PATTERN}"
    store = replace(STORE, retries=0)
    loader = BatchLoader(replace(_config(nowhere, "keep", None), store=store))
    assert (loader.num_samples, loader.num_batches) == (None, None)
    with pytest.raises(DataError, match=r"0\d\d\.tar"):
        next(iter(loader))
    with refusal_of("num_samples"):
        BatchLoader(_config(nowhere, "drop", None))


def _bytes_held(folder):
    """Bytes of this process's open files in a folder, where they have no names any more."""
    held = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{number}").startswith(str(folder)):
                found = os.stat(f"/proc/self/fd/{number}")
                held[found.st_ino] = found.st_size
    return sum(held.values())


def test_only_prefetched_shards_are_on_the_disk(tmp_path):
    served, cache = tmp_path / "served", tmp_path / "cache"
    served.mkdir()
    size, count = 300_000, 60
    for shard in range(count):
        image = encode(noise(shard, (180, 180)), "PNG", compress_level=0)
        write_tar(served / f"{shard:03d}.tar", [(f"{shard}-{sample}.png", image) for sample in range(3)])
    assert all(abs(path.stat().st_size - size) < 50_000 for path in served.iterdir())
    with servers.nginx(served, tmp_path) as url:
        store = replace(STORE, cache_dir=str(cache), read_ahead_bytes=4 * size)
        config = replace(
            _config(f"{url}/{{000..{count - 1:03d}}}.tar", "keep", None), captions=(), store=store, num_epochs=1
        )
        most, keys = 0, []
        with BatchLoader(config) as loader:
            for batch in loader:
                keys += batch.keys
                time.sleep(0.02)
                most = max(most, _bytes_held(cache))
        assert len(set(keys)) == 3 * count
        # What may be fetched ahead, and what the batches on the way need: windows of 12 samples lie in 5 shards.
        assert 2 * size < most < 16 * size, most / size
