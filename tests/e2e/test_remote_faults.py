"""Servers and disks that fail while shards are read: no sample is lost, and errors name the cause."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.http_servers import Request, serving
from tests.support.object_stores import SETTINGS, object_store
from tests.support.remote_shards import (
    BUCKET,
    NUM_SHARDS,
    QUICK,
    SAMPLES,
    batches,
    check,
    config,
    digest,
    served_copy,
)
from tests.support.shards import encoded

from prolip.data import Batch, BatchLoader, DataError, StoreConfig, examine_shards, fetch_shard, write_index

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


def python(program: str, *words: str) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def reading(shards: str, index: Path, cache: Path, limit: int, before: str = "") -> subprocess.Popen[str]:
    process = python(before + RUN, shards, str(index), str(cache), str(limit))
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    return process


@pytest.fixture
def index(tmp_path: Path, folder: Path) -> Path:
    """An index whose shards no server is asked for at opening."""
    return tmp_path / "remote.index"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_an_unreliable_server_gives_the_same_batches(
    ranges: bool, suffix: str, folder: Path, expected: list[Batch], tmp_path: Path
) -> None:
    server = servers.nginx(folder, tmp_path) if ranges else servers.python_server(folder)
    with server as url, servers.FaultProxy(url, seed=int(ranges)) as proxy:
        check(f"{proxy.url}/{{000..005}}.{suffix}", expected, tmp_path)
        assert sum(count for fault, count in proxy.faults.items() if fault != "none") > 5, proxy.faults


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_an_unreliable_object_store_gives_the_same_batches(
    scheme: str, folder: Path, expected: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store(scheme, folder, tmp_path) as endpoint, servers.FaultProxy(endpoint, seed=2) as proxy:
        SETTINGS[scheme](monkeypatch, proxy.url)
        check(f"{scheme}://{BUCKET}/data/*.tar", expected, tmp_path)
        assert sum(count for fault, count in proxy.faults.items() if fault != "none") > 5, proxy.faults


def test_absent_credentials_are_not_reported_as_a_missing_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: Request) -> None:
        request.send_error(404)

    # As on a machine in a cloud that has no role.
    with serving(type("Metadata", (Request,), {"do_PUT": refuse, "do_GET": refuse})) as url:
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.delenv(f"AWS_{name}", raising=False)
        for name, value in {"METADATA_ENDPOINT": url, "ENDPOINT_URL": url, "ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        with pytest.raises(DataError, match=r"shard s3://b/a\.tar: no answer: .*/latest/api/token .*404"):
            examine_shards(["s3://b/a.tar"], StoreConfig(retries=0))


def test_a_missing_shard_is_an_error_or_skipped(
    folder: Path, expected: list[Batch], tmp_path: Path, index: Path
) -> None:
    served = served_copy(folder, tmp_path / "served")
    with servers.python_server(served) as url:
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


def test_a_shard_changed_since_indexing_is_refused(folder: Path, tmp_path: Path, index: Path) -> None:
    served = served_copy(folder, tmp_path / "served")
    with servers.nginx(served, tmp_path) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        status = (served / "002.tar").stat()
        # nginx's ETags are made of the size and the whole second.
        os.utime(served / "002.tar", (status.st_atime, status.st_mtime + 2))
        with pytest.raises(DataError, match=r"002\.tar.* changed since it was indexed"):
            batches(config(shards, index))


def test_a_full_disk_while_prefetching_is_an_error(folder: Path, tmp_path: Path, index: Path) -> None:
    # A limit on the size of files stands for a full disk: it stops the run whatever becomes of missing shards.
    small = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
    skip = "import tests.support.remote_shards as lab\nfrom dataclasses import replace\nwhole = lab.config\n"
    skip += "lab.config = lambda *words: replace(whole(*words), on_missing_shard='skip', max_bad_fraction=1.0)\n"
    with servers.nginx(folder, tmp_path) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        for limit in (0, 2**30):
            cache = tmp_path / f"cache{limit}"
            output, error = reading(shards, index, cache, limit, small + skip).communicate(timeout=60)
            assert output == ""
            last = error.strip().splitlines()[-1]
            assert "DataError: shard http://" in last
            why = ".tar: its bytes cannot be kept: File too large (os error 27); the folder (data.store.cache_dir) is "
            assert re.search(rf"{re.escape(f'{why}{cache}')}, where \d+ bytes are free", last)
            assert list(cache.iterdir()) == []


def store_threads(name: str) -> int:
    names = (Path("/proc/self/task") / task / "comm" for task in os.listdir("/proc/self/task"))
    return sum(path.read_text().startswith(name) for path in names if path.exists())


def test_closing_a_loader_leaves_no_thread_and_no_file(folder: Path, tmp_path: Path, index: Path) -> None:
    cache = tmp_path / "cache"
    with servers.python_server(folder) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        for taken in range(1, 5):
            loader = BatchLoader(config(shards, index, replace(QUICK, cache_dir=str(cache))))
            of_it: Iterator[Batch] = iter(loader)
            for _ in range(taken):
                next(of_it)
            assert store_threads("prolip-store") > 0
            begun = time.monotonic()
            loader.close()
            assert time.monotonic() - begun < 2
            assert servers.wait_until(lambda: store_threads("prolip") == 0, 5)
            assert list(cache.iterdir()) == []


def test_a_kept_shard_that_was_cut_is_fetched_again(folder: Path, tmp_path: Path) -> None:
    store, out = replace(QUICK, cache_dir=str(tmp_path / "cache"), cache_bytes=2**30), tmp_path / "out.tar"
    with servers.python_server(folder) as url:
        for _ in range(2):
            fetch_shard(f"{url}/000.tar", out, store)
            assert out.read_bytes() == (folder / "000.tar").read_bytes()
            [kept] = (tmp_path / "cache").iterdir()
            os.truncate(kept, 1000)


def test_local_shards_start_no_store_threads_and_no_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    local = config(str(folder / "*.tar"), store=replace(QUICK, cache_dir=str(cache), cache_bytes=2**30))
    with BatchLoader(local) as loader:
        reader = iter(loader)
        next(reader)
        assert store_threads("prolip") > 0
        assert store_threads("prolip-store") == 0
    assert not cache.exists()


def test_waiting_for_a_silent_server_can_be_interrupted(tmp_path: Path, folder: Path, index: Path) -> None:
    with servers.python_server(folder) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        silent = servers.Silent(int(url.rpartition(":")[2]))
    with silent:
        # What a shell started in the background ignores Ctrl-C, and so would this process.
        hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        process = reading(shards, index, tmp_path / "cache", 0, hear)
        assert servers.wait_until(lambda: silent.visitors > 0, 60)
        process.send_signal(signal.SIGINT)
        # It has waited for no answer: the first would be given up after 20 seconds, the last after minutes.
        output, error = process.communicate(timeout=15)
        assert "KeyboardInterrupt" in error
        assert output == ""


def test_a_silent_object_store_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.Silent(servers.free_port()) as silent:
        SETTINGS["s3"](monkeypatch, f"http://127.0.0.1:{silent.port}")
        hasty = replace(QUICK, timeout_s=0.5, retries=1)
        with pytest.raises(DataError, match=r"s3://b/\*\.tar: no byte for 500ms \(tried 2 times\)"):
            BatchLoader(config("s3://b/*.tar", store=hasty))


def test_processes_of_a_node_share_a_cache(folder: Path, expected: list[Batch], tmp_path: Path, index: Path) -> None:
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


def test_memory_does_not_grow_with_the_shards(tmp_path: Path, index: Path) -> None:
    served, size = tmp_path / "served", 2**28
    served.mkdir()
    with tarfile.open(served / "000.tar", "w") as tar:
        for name, content in (("a.txt", b"a picture"), ("a.png", encoded((1, 2, 3)))):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        # A large member that nobody asks for: a hole of the file.
        entry = tarfile.TarInfo("a.bin")
        entry.size = size
        tar.addfile(entry)
        assert tar.fileobj is not None
        tar.fileobj.seek(size, os.SEEK_CUR)
    program = (
        "import resource, sys\n"
        "from dataclasses import replace\n"
        "from tests.support import remote_shards as lab\n"
        "config = replace(lab.config(sys.argv[1]), last_batch='keep')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert len(lab.batches(config)) == 2\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    with servers.nginx(served, tmp_path) as url:
        output, error = python(program, f"{url}/000.tar").communicate(timeout=120)
        assert output, error
        assert int(output) * 1024 < size / 4


def test_a_killed_process_leaves_nothing_that_blocks_the_next(
    folder: Path, expected: list[Batch], tmp_path: Path, index: Path
) -> None:
    cache = tmp_path / "cache"
    with servers.nginx(folder, tmp_path, "limit_rate 100k;") as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        process = reading(shards, index, cache, 2**30)
        assert servers.wait_until(lambda: cache.exists() and any(path.stat().st_size for path in cache.iterdir()), 60)
        process.kill()
        process.communicate(timeout=30)
        left = {path.name for path in cache.iterdir() if path.suffix == ".part"}
        assert left
        output, error = reading(shards, index, cache, 2**30).communicate(timeout=120)
        assert output.strip() == digest(expected), error
        assert sorted(path.suffix for path in cache.iterdir()) == [".shard"] * NUM_SHARDS
