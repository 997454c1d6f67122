"""`prolip data index` and a loader that opens by the index alone."""

import gzip
import os

import pytest
from tests.support.http_servers import answering
from tests.support.shards import FULL, config, contents, write_two_shards

from prolip.cli import main
from prolip.data import BatchLoader, StoreConfig, check_index, write_index


@pytest.fixture
def shards(tmp_path):
    return write_two_shards(tmp_path)


def make(shards, out, capsys):
    assert main(["data", "index", "--shards", shards, "--out", str(out), "--threads", "2"]) == 0
    return capsys.readouterr().out


def test_with_an_index_batches_are_equal(shards, tmp_path, capsys):
    index = tmp_path / "train.index"
    assert "16 samples in 2 shards" in make(shards, index, capsys)
    indexed = config(shards, index=str(index), **FULL)
    assert contents(BatchLoader(indexed)) == contents(BatchLoader(config(shards, **FULL)))


def test_copies_of_a_shard_have_its_stamp(shards, tmp_path):
    index = tmp_path / "train.index"
    write_index([shards], index, 1, StoreConfig())
    (tmp_path / "packed.tar.gz").write_bytes(gzip.compress((tmp_path / "001.tar").read_bytes()))
    with BatchLoader(config(shards)) as local, BatchLoader(config(shards, index=str(index))) as indexed:
        stamps = local.stamps()
        assert indexed.stamps() == stamps
    assert len(set(stamps)) == 2
    with BatchLoader(config(str(tmp_path / "packed.tar.gz"))) as packed:
        assert packed.stamps() == stamps[1:]
    with answering(folder=tmp_path) as address, BatchLoader(config(f"{address}/001.tar", last_batch="keep")) as remote:
        assert remote.stamps() == [""]
        assert len(list(remote)) == 3
        assert remote.stamps() == stamps[1:]


def test_checking_an_index_prints_what_differs(shards, tmp_path, capsys):
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
