"""`prolip data index` and a loader that opens by the index alone."""

from __future__ import annotations

import dataclasses
import gzip
import os
from pathlib import Path

import pytest
from prolip.cores import usable_cores
from tests.support.shards import FULL, config, contents, encoded, write_tar, write_two_shards

from prolip.cli import main
from prolip.data import BatchLoader, DataError, StoreConfig, check_index, examine_shards, write_index
from prolip.errors import UserError


@pytest.fixture
def shards(tmp_path: Path) -> str:
    return write_two_shards(tmp_path)


def make(shards: str, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["data", "index", "--shards", shards, "--out", str(out), "--threads", "2"]) == 0
    return capsys.readouterr().out


def test_with_an_index_batches_are_equal_and_opening_reads_no_shard(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "train.index"
    assert "16 samples in 2 shards" in make(shards, index, capsys)
    indexed = config(shards, index=str(index), **FULL)
    assert contents(BatchLoader(indexed)) == contents(BatchLoader(config(shards, **FULL)))
    # Rubbish of the same size and time: only reading would notice.
    first = tmp_path / "000.tar"
    status = first.stat()
    first.write_bytes(b"7" * status.st_size)
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="byte 0: damaged header"):
        BatchLoader(config(shards))
    assert BatchLoader(indexed).num_samples == 16


def test_a_negative_number_of_threads_is_named(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "index", "--shards", shards, "--out", str(tmp_path / "index"), "--threads", "-1"]) == 2
    assert "threads is -1: it must not be negative" in capsys.readouterr().err


def test_errors_about_shards_name_the_option(tmp_path: Path) -> None:
    store, index = StoreConfig(), tmp_path / "index"
    for shard in ("ftp://host/a.tar", "pipe:cat a.tar"):
        for call in (write_index, check_index):
            with pytest.raises(UserError, match=r"^shards: "):
                call([shard], index, 1, store)
        with pytest.raises(UserError, match=r"^shards: "):
            examine_shards([shard], store)


def test_without_a_number_there_are_as_many_threads_as_usable_cores(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may use few of its machine's cores."""
    used: list[int] = []

    def check(shards: list[str], index: Path, threads: int, store: StoreConfig) -> list[str]:
        used.append(threads)
        return []

    monkeypatch.setattr("prolip.data.index.check_index", check)
    monkeypatch.setattr("os.cpu_count", lambda: 1000)
    assert main(["data", "index", "--shards", shards, "--out", str(tmp_path / "index"), "--check"]) == 0
    assert used == [usable_cores()]


def test_an_index_that_cannot_be_written_is_refused_before_a_shard_is_read(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "000.tar").write_bytes(b"7" * 512)
    assert main(["data", "index", "--shards", shards, "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder, where a file is needed: name a file\n" in capsys.readouterr().err


def test_a_shard_changed_since_indexing_is_an_error(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "train.index"
    make(shards, index, capsys)
    write_tar(tmp_path / "001.tar", [("a.png", encoded((0, 0, 0)))])
    with pytest.raises(
        DataError, match=r"001\.tar has changed since the index .*train\.index was made .*it had \d+ bytes"
    ):
        BatchLoader(config(shards, index=str(index)))
    (tmp_path / "002.tar").write_bytes((tmp_path / "001.tar").read_bytes())
    with pytest.raises(DataError, match=r"002\.tar is not in the index .*train\.index"):
        BatchLoader(config(str(tmp_path / "002.tar"), index=str(index)))
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"train\.index: the index is damaged"):
        BatchLoader(config(shards, index=str(index)))
    with pytest.raises(DataError, match=r"none: No such file"):
        BatchLoader(config(shards, index=str(tmp_path / "none")))


def test_checking_an_index_prints_what_differs(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = tmp_path / "train.index"
    make(shards, index, capsys)
    words = ["data", "index", "--shards", shards, "--out", str(index), "--check"]
    assert main(words) == 0
    assert "matches its shards" in capsys.readouterr().out
    os.utime(tmp_path / "001.tar", ns=(0, 0))
    assert main(words) == 1
    assert "001.tar was written again since" in capsys.readouterr().out
    assert len(check_index([shards], index, 1, StoreConfig())) == 1
    (tmp_path / "001.tar").unlink()
    assert main(words) == 1
    assert "001.tar: cannot open" in capsys.readouterr().out


def test_a_file_that_is_no_archive_cannot_be_indexed(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "train.index"
    (tmp_path / "001.tar").write_bytes(b"<html>")
    assert main(["data", "index", "--shards", shards, "--out", str(index)]) == 2
    assert "001.tar, byte 0" in capsys.readouterr().err
    assert main(["data", "index", "--out", str(index)]) == 2
    assert "--shards" in capsys.readouterr().err
    assert not index.exists()


def test_indexing_reports_damaged_shards(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "001.tar"
    path.write_bytes(path.read_bytes()[: 5 * 1024 + 100])
    shown = make(shards, tmp_path / "train.index", capsys)
    assert "001.tar, byte 5120: the archive is truncated" in shown
    # Five members are one sample and two thirds of another; what is behind them is one more.
    assert "10 samples" in shown


def test_compressed_shards_give_the_batches_of_plain_ones(
    shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("000", "001"):
        (tmp_path / f"{name}.tar.gz").write_bytes(gzip.compress((tmp_path / f"{name}.tar").read_bytes()))
    packed, plain = shards.replace(".tar", ".tar.gz"), config(shards, **FULL)
    expected = contents(BatchLoader(plain))
    assert contents(BatchLoader(config(packed, **FULL))) == expected
    index = tmp_path / "packed.index"
    assert "16 samples in 2 shards" in make(packed, index, capsys)
    indexed = config(packed, index=str(index), **FULL)
    first = next(iter(BatchLoader(indexed)))
    assert contents(BatchLoader(indexed, resume=first.cursor)) == expected[1:]
    keep = {"last_batch": "keep", "shuffle_window": 0, "batch_size": 3}
    assert contents(BatchLoader(config(packed, **keep))) == contents(BatchLoader(config(shards, **keep)))
    assert check_index([packed], str(index), 1, StoreConfig()) == []
    whole = (tmp_path / "001.tar.gz").read_bytes()
    (tmp_path / "001.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"001\.tar\.gz has changed since the index .*it had \d+ bytes"):
        BatchLoader(indexed)
    damaged = dataclasses.replace(config(packed), last_batch="keep", max_bad_fraction=1)
    loader = BatchLoader(damaged)
    keys = {key for batch in loader for key in batch.keys}
    assert {f"s0k{index}" for index in range(7)} <= keys
    assert loader.stats().bad["archive"] == 1
    assert any("001.tar.gz, sample no. " in line for line in loader.stats().bad_samples)


def test_the_next_command_shows_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(shards: list[str], index: Path, threads: int, store: StoreConfig) -> tuple[int, int, list[str]]:
        index.touch()
        return len(shards), 0, []

    monkeypatch.setattr("prolip.data.index.write_index", write)
    said = make("https://user:secret@host/a.tar?signature=secret", tmp_path / "train.index", capsys)
    assert "https://host/a.tar?…" in said
    assert "secret" not in said
