"""Fixtures of several rooms: a synthetic world of emoji, shards read by webdataset, the real art."""

import json
from typing import Any

import pytest
from tests.support.emoji_build import skip_without_real_art
from tests.support.emoji_shards import emoji_data
from tests.support.shards import write_two_shards
from webdataset.tariterators import group_by_keys, tar_file_expander

__all__ = ["emoji_data"]  # a fixture

Record = dict[str, Any]


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """The pattern of two shards of 16 samples, which no test changes."""
    return write_two_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def read_back():
    """Samples of the shards that a pattern names, grouped by webdataset, with the json parsed."""

    def read(folder, pattern="*.tar"):
        shards = [str(path) for path in sorted(folder.glob(pattern))]
        assert shards, f"no {pattern} in {folder}"
        samples = []
        for shard in shards:
            with open(shard, "rb") as stream:
                files = tar_file_expander([{"url": shard, "stream": stream}])
                samples.extend(group_by_keys(files))
        return [{**sample, "json": json.loads(sample["json"])} for sample in samples]

    return read


@pytest.fixture(scope="session")
def real_art():
    """Skips where the packages of the extra `demo` are not installed."""
    skip_without_real_art()
