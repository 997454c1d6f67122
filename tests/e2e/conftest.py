"""The laboratories of the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e import remote_lab
from tests.e2e.lab import RECIPE, Lab, write_shard, write_tokenizer

from prolip.data import Batch


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
    remote_lab.write_shards(folder)
    return folder


@pytest.fixture(scope="session")
def expected(folder: Path) -> list[Batch]:
    """What the shards give from the disk."""
    return remote_lab.batches(remote_lab.config(str(folder / "{000..005}.tar")))
