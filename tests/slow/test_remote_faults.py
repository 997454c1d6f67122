"""Servers and disks that fail while shards are read: no sample is lost, and errors name the cause."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support import servers
from tests.support.http_servers import answering
from tests.support.images import encode
from tests.support.object_stores import s3_settings
from tests.support.remote_shards import (
    BUCKET,
    NUM_SHARDS,
    QUICK,
    SAMPLES,
    assert_equal,
    batches,
    check,
    config,
    digest,
    served_copy,
)
from tests.support.shards import write_tar

from prolip.data import BatchLoader, DataError, write_index
from prolip.store.selection import Chosen, write_selection

RUN = """
import sys
from dataclasses import replace

from tests.support import remote_shards as lab

shards, index, cache, limit = sys.argv[1:]
config = lab.config(shards, index, replace(lab.QUICK, cache_dir=cache, cache_bytes=int(limit)))
print("reading", flush=True)
print(lab.digest(lab.batches(config)), flush=True)
"""
"""A process that reads everything and says what it was."""


def python(program, *words):
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def reading(shards, index, cache, limit, before=""):
    process = python(before + RUN, shards, str(index), str(cache), str(limit))
    assert process.stdout.readline() == "reading\n"
    return process


@pytest.fixture
def index(tmp_path, folder):
    """An index whose shards no server is asked for at opening."""
    return tmp_path / "remote.index"


@pytest.mark.parametrize(("ranges", "suffix"), [(True, "tar"), (False, "tar.gz")])
def test_an_unreliable_server_gives_the_same_batches(ranges, suffix, folder, expected, tmp_path):
    server = servers.nginx(folder, tmp_path) if ranges else answering(folder=folder)
    with server as url, servers.FaultProxy(url, seed=int(ranges)) as proxy:
        check(f"{proxy.url}/{{000..005}}.{suffix}", expected, tmp_path)
        assert sum(count for fault, count in proxy.faults.items() if fault != "none") > 5, proxy.faults


def test_of_a_selection_an_object_store_sends_the_ranges(tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    folder.mkdir()
    image = encode(Image.new("RGB", (48, 48), (200, 100, 0)), "JPEG")
    for shard in range(3):
        content = [("jpg", image), ("txt", b"a picture"), ("bin", bytes(300_000))]
        write_tar(folder / f"{shard:03d}.tar", [(f"{row}.{kind}", data) for row in range(40) for kind, data in content])

    runs, index, chosen = [], tmp_path / "all.index", tmp_path / "chosen"
    rows = np.array([1, 2, 11, 30], np.uint32)
    with servers.moto(folder, BUCKET) as target, servers.FaultProxy(target, seed=0) as proxy:
        # A store's client does not try again after a 416 out of nowhere, which no store sends.
        proxy.kinds = [kind for kind in proxy.kinds if kind != "416"]
        s3_settings(monkeypatch, proxy.url)
        for place in (str(folder), f"s3://{BUCKET}/data"):
            shards = f"{place}/{{000..002}}.tar"
            write_index([shards], index, 2, QUICK)
            write_selection(chosen, [Chosen(f"{place}/{shard:03d}.tar", "", rows) for shard in range(3)])
            proxy.sent = 0
            runs.append(batches(replace(config(shards, index), selection=str(chosen), batch_size=4)))
    assert_equal(*runs)
    assert 0 < proxy.sent < sum(path.stat().st_size for path in folder.iterdir()) / 2


def test_a_missing_shard_is_an_error_or_skipped(folder, expected, tmp_path, index):
    served = served_copy(folder, tmp_path / "served")
    with answering(folder=served) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        (served / "003.tar").unlink()
        with pytest.raises(DataError, match=r"003\.tar: the server answers 404"):
            batches(config(shards, index))
        skipping = replace(
            config(shards, index), on_missing_shard="skip", max_bad_fraction=0.5, num_epochs=1, last_batch="keep"
        )
        with BatchLoader(skipping) as loader:
            keys = [key for batch in loader for key in batch.keys]
            bad = loader.stats().bad
        everything = {key for batch in expected for key in batch.keys}
        assert sorted(keys) == sorted(key for key in everything if not key.startswith("003-"))
        assert bad["read"] == SAMPLES + 3


def test_a_shard_changed_since_indexing_is_refused(folder, tmp_path, index):
    served = served_copy(folder, tmp_path / "served")
    with servers.nginx(served, tmp_path) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        status = (served / "002.tar").stat()
        # nginx's ETags are made of the size and the whole second.
        os.utime(served / "002.tar", (status.st_atime, status.st_mtime + 2))
        with pytest.raises(DataError, match=r"002\.tar.* changed since it was indexed"):
            batches(config(shards, index))


def test_processes_of_a_node_share_a_cache(folder, expected, tmp_path, index):
    cache = tmp_path / "cache"
    with servers.nginx(folder, tmp_path) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        processes = [reading(shards, index, cache, 2**30) for _ in range(3)]
        results = [process.communicate(timeout=120) for process in processes]
        assert [output.strip() for output, _ in results] == [digest(expected)] * 3, results
        assert cache.stat().st_mode & 0o777 == 0o700
        assert sorted(path.suffix for path in cache.iterdir()) == [".shard"] * NUM_SHARDS
        kept = {path.read_bytes() for path in cache.iterdir()}
        assert kept == {path.read_bytes() for path in folder.glob("*.tar")}
