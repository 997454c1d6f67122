"""Fixtures of the slow tests: folders with trained runs that several tests share."""

import pytest
from tests.support import remote_shards
from tests.support.emoji_shards import emoji_data
from tests.support.onnx_table import one_table
from tests.support.small_training import RECIPE, SHARDED, SHORT, VALIDATED, Lab, write_shard, write_tokenizer

__all__ = ["emoji_data", "one_table"]  # fixtures


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    write_shard(folder / "train.tar")
    write_tokenizer(folder / "tokenizer.json")
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    return Lab(folder)


@pytest.fixture(scope="session")
def finished(lab):
    """The name of a run to its end, 24 steps. Several tests ask about it; who changes it takes a copy."""
    name = "shared/finished"
    assert lab.here(name) == 0
    return name


@pytest.fixture(scope="session")
def short(lab):
    """The name of a run of 20 steps."""
    name = "shared/short"
    assert lab.here(name, *SHORT, "--keep_checkpoints", "1") == 0
    return name


@pytest.fixture(scope="session")
def watched(lab):
    """The same recipe, with sets to evaluate."""
    folder = lab.folder / "watched"
    folder.mkdir()
    (folder / "recipe.toml").write_text((RECIPE + VALIDATED).format(folder=lab.folder))
    return Lab(folder)


@pytest.fixture(scope="session")
def sharded(watched):
    """The name of a run of two processes that share the model, evaluated as it goes."""
    name = "shared/sharded"
    watched.launch(name, *SHARDED, processes=2)
    return name


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Shards that servers are given."""
    folder = tmp_path_factory.mktemp("shards")
    remote_shards.write_shards(folder)
    return folder


@pytest.fixture(scope="session")
def expected(folder):
    """What the shards give from the disk."""
    return remote_shards.batches(remote_shards.config(str(folder / "{000..005}.tar")))
