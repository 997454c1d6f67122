"""Shards on real servers give the batches that they give on the disk: pixels, ids and keys, none lost, none twice."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.e2e import servers

from prolip.data import AugmentConfig, Batch, BatchLoader, DataError, LoaderConfig, StoreConfig, write_index

NUM_SHARDS = 6
SAMPLES = 40
BUCKET = "prolip-test"
QUICK = StoreConfig(connections=4, retries=12, timeout_s=20)


def _write_shards(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for shard in range(NUM_SHARDS):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for sample in range(SAMPLES + shard):
                picture = io.BytesIO()
                noise = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((48, 48)).save(picture, "JPEG", quality=90)
                caption = f"picture {sample} of {shard}".encode()
                for suffix, content in (("jpg", picture.getvalue()), ("txt", caption)):
                    entry = tarfile.TarInfo(f"{shard:03d}-{sample:04d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    for path in sorted(folder.glob("*.tar")):
        with gzip.open(f"{path}.gz", "wb", compresslevel=1) as packed:
            packed.write(path.read_bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    _write_shards(folder)
    return folder


def _config(shards: str, index: Path | str | None = None, store: StoreConfig = QUICK) -> LoaderConfig:
    return LoaderConfig(
        shards=(shards,),
        index=None if index is None else str(index),
        batch_size=16,
        image_size=32,
        augment=AugmentConfig(),
        seed=3,
        num_epochs=2,
        shuffle_window=64,
        num_threads=2,
        store=store,
    )


def _batches(config: LoaderConfig) -> list[Batch]:
    with BatchLoader(config) as loader:
        return [batch._replace(images=batch.images.copy(), token_ids=batch.token_ids.copy()) for batch in loader]


def _assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    assert [batch.keys for batch in found] == [batch.keys for batch in expected]
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.token_ids, two.token_ids)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Batch]:
    """What the shards give from the disk."""
    return _batches(_config(str(folder / "{000..005}.tar")))


def _check(shards: str, expected: list[Batch], tmp_path: Path, store: StoreConfig = QUICK) -> None:
    """With an index made of the server's shards, the run is the local one."""
    index = tmp_path / "remote.index"
    _, samples, notes = write_index([shards], index, 2, store)
    assert (samples, notes) == (sum(SAMPLES + shard for shard in range(NUM_SHARDS)), [])
    _assert_equal(_batches(_config(shards, index, store)), expected)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_nginx(suffix: str, folder: Path, expected: list[Batch], tmp_path: Path) -> None:
    with servers.nginx(folder, tmp_path) as url:
        _check(f"{url}/{{000..005}}.{suffix}", expected, tmp_path)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_server_without_ranges(suffix: str, folder: Path, expected: list[Batch], tmp_path: Path) -> None:
    with servers.python_server(folder) as url:
        _check(f"{url}/{{000..005}}.{suffix}", expected, tmp_path)


@pytest.mark.parametrize("pattern", ["data/{000..005}.tar", "data/*.tar"])
def test_s3(pattern: str, folder: Path, expected: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.moto(folder, BUCKET) as endpoint:
        settings = {"ENDPOINT_URL": endpoint, "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
        for name, value in {**settings, "REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        _check(f"s3://{BUCKET}/{pattern}", expected, tmp_path)
        missing = _config(f"s3://{BUCKET}/data/none-*.tar")
        with pytest.raises(ValueError, match="it matches no object"):
            BatchLoader(missing)


@pytest.mark.parametrize("pattern", ["data/{000..005}.tar", "data/*.tar"])
def test_google(
    pattern: str, folder: Path, expected: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.gcs(folder, BUCKET, tmp_path) as endpoint:
        for name, value in {"BASE_URL": endpoint, "ALLOW_HTTP": "true", "SKIP_SIGNATURE": "true"}.items():
            monkeypatch.setenv(f"GOOGLE_{name}", value)
        _check(f"gs://{BUCKET}/{pattern}", expected, tmp_path)


def test_the_hub(folder: Path, expected: list[Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tmp_path / "hub" / "datasets" / "owner" / "name" / "resolve" / "v1"
    files.parent.mkdir(parents=True)
    files.symlink_to(folder)
    with servers.nginx(tmp_path / "hub", tmp_path) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        _check("hf://datasets/owner/name@v1/{000..005}.tar", expected, tmp_path)


def test_an_index_may_lie_elsewhere_too(folder: Path, expected: list[Batch], tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    for path in folder.glob("*.tar"):
        (served / path.name).symlink_to(path)
    with servers.nginx(served, tmp_path) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], served / "all.index", 2, QUICK)
        _assert_equal(_batches(_config(shards, f"{url}/all.index")), expected)
        with pytest.raises(DataError, match=r"none\.index: the server answers 404"):
            BatchLoader(_config(shards, f"{url}/none.index"))
        with pytest.raises(DataError, match=r"000\.tar: it is no index"):
            BatchLoader(_config(shards, f"{url}/000.tar"))


def test_commands(folder: Path, expected: list[Batch], tmp_path: Path) -> None:
    shards = f"pipe:cat {folder}/{{000..005}}.tar | cat"
    _check(shards, expected, tmp_path, replace(QUICK, allow_pipe=True))
    with pytest.raises(ValueError, match=r"data\.store\.allow_pipe"):
        BatchLoader(_config(shards))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_whatever_breaks(ranges: bool, seed: int, folder: Path, expected: list[Batch], tmp_path: Path) -> None:
    server = servers.nginx(folder, tmp_path) if ranges else servers.python_server(folder)
    with server as url:
        proxy = servers.FaultProxy(url, seed)
        try:
            _check(f"{proxy.url}/{{000..005}}.tar", expected, tmp_path)
        finally:
            proxy.close()
        assert sum(count for fault, count in proxy.faults.items() if fault != "none") > 5, proxy.faults


def test_a_missing_shard(folder: Path, expected: list[Batch], tmp_path: Path) -> None:
    index = tmp_path / "remote.index"
    served = tmp_path / "served"
    served.mkdir()
    for path in folder.glob("*.tar"):
        (served / path.name).symlink_to(path)
    with servers.python_server(served) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        (served / "003.tar").unlink()
        config = _config(shards, index)
        with pytest.raises(DataError, match=r"003\.tar: the server answers 404"):
            _batches(config)
        skipping = replace(config, on_missing_shard="skip", max_bad_fraction=0.5, num_epochs=1, last_batch="keep")
        with BatchLoader(skipping) as loader:
            keys = [key for batch in loader for key in batch.keys]
            bad = loader.stats().bad
        everything = {key for batch in expected for key in batch.keys}
        assert sorted(keys) == sorted(key for key in everything if not key.startswith("003-"))
        assert bad["read"] == SAMPLES + 3


def test_a_shard_that_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    for path in folder.glob("*.tar"):
        (served / path.name).write_bytes(path.read_bytes())
    index = tmp_path / "remote.index"
    with servers.nginx(served, tmp_path) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        time.sleep(1.1)
        (served / "002.tar").write_bytes((folder / "002.tar").read_bytes())
        with pytest.raises(DataError, match=r"002\.tar.* changed since it was indexed"):
            _batches(_config(shards, index))


def _store_threads() -> int:
    names = (Path("/proc/self/task") / task / "comm" for task in os.listdir("/proc/self/task"))
    return sum(name.read_text().startswith("prolip") for name in names if name.exists())


def test_closing_leaves_no_thread_and_no_file(folder: Path, tmp_path: Path) -> None:
    index, cache = tmp_path / "remote.index", tmp_path / "cache"
    with servers.python_server(folder) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        config = _config(shards, index, replace(QUICK, cache_dir=str(cache)))
        for taken in range(1, 5):
            loader = BatchLoader(config)
            batches: Iterator[Batch] = iter(loader)
            for _ in range(taken):
                next(batches)
            begun = time.monotonic()
            loader.close()
            assert time.monotonic() - begun < 2
            assert servers.wait_until(lambda: _store_threads() == 0, 5)
            assert list(cache.iterdir()) == []


def test_a_server_that_says_nothing_can_be_interrupted(tmp_path: Path, folder: Path) -> None:
    index = tmp_path / "remote.index"
    with servers.python_server(folder) as url:
        write_index([f"{url}/{{000..005}}.tar"], index, 2, QUICK)
        silent = servers.Silent(int(url.rpartition(":")[2]))
    program = (
        "from prolip.data import BatchLoader, LoaderConfig\n"
        f"shards, index = {url!r} + '/{{000..005}}.tar', {str(index)!r}\n"
        "config = LoaderConfig(shards=(shards,), index=index, batch_size=4, image_size=32)\n"
        "print('reading', flush=True)\n"
        "for batch in BatchLoader(config): print('a batch', flush=True)\n"
    )
    with silent:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        assert servers.wait_until(lambda: silent.visitors > 0, 60)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=30)
        assert time.monotonic() - begun < 5
        assert "KeyboardInterrupt" in error
        assert output == ""


def test_processes_of_a_node_share_a_cache(folder: Path, expected: list[Batch], tmp_path: Path) -> None:
    index, cache = tmp_path / "remote.index", tmp_path / "cache"
    with servers.nginx(folder, tmp_path) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], index, 2, QUICK)
        store = replace(QUICK, cache_dir=str(cache), cache_bytes=2**30)
        results: list[list[Batch]] = []
        threads = [
            threading.Thread(target=lambda: results.append(_batches(_config(shards, index, store)))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 3
        for found in results:
            _assert_equal(found, expected)
        names = sorted(path.suffix for path in cache.iterdir())
        assert names == [".shard"] * NUM_SHARDS
