"""The laboratory of the end-to-end tests."""

from __future__ import annotations

import pytest
from tests.e2e.lab import RECIPE, Lab, write_shard, write_tokenizer


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    write_shard(folder / "train.tar")
    write_tokenizer(folder / "tokenizer.json")
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    return Lab(folder)
