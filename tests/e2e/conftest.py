"""The laboratories of the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import remote_shards
from tests.support.emoji_world import emoji_data, emoji_results, emoji_sets
from tests.support.small_training import RECIPE, Lab, write_shard, write_tokenizer

from prolip.data import Batch

__all__ = ["emoji_data", "emoji_results", "emoji_sets"]  # fixtures


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    write_shard(folder / "train.tar")
    write_tokenizer(folder / "tokenizer.json")
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    return Lab(folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards that servers are given."""
    folder = tmp_path_factory.mktemp("shards")
    remote_shards.write_shards(folder)
    return folder


@pytest.fixture(scope="session")
def expected(folder: Path) -> list[Batch]:
    """What the shards give from the disk."""
    return remote_shards.batches(remote_shards.config(str(folder / "{000..005}.tar")))
