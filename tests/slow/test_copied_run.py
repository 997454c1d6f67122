"""A run's folder or one checkpoint, copied elsewhere, is all that a command needs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.support.small_training import RECIPE, SHORT, Lab, write_shard, write_tokenizer

from prolip.cli import main
from prolip.inference.load_model import load

served = []


def read_captions(explorer, _options, _listener):
    """Stands for serving the page, which would not end."""
    texts = [explorer.model.tokenize(caption).numpy() for caption in ("red left", "blue top")]
    assert not np.array_equal(*texts)
    served.append(explorer)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder with a copy of a run, its checkpoint, its export and its images; the original has gone."""
    origin, folder = tmp_path_factory.mktemp("origin"), tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(origin)
        write_shard(origin / "train.tar")
        write_tokenizer(origin / "tokenizer.json")
        (origin / "recipe.toml").write_text(RECIPE.format(folder="."))
        assert Lab(Path()).here("run", *SHORT) == 0
        assert main(f"export run --out {folder}/export".split()) == 0
    shutil.copytree(origin / "run", folder / "run", symlinks=True)
    (checkpoint,) = (origin / "run" / "checkpoints").glob("step_*")
    shutil.copytree(checkpoint, folder / "copied checkpoint")
    shutil.copy(origin / "train.tar", folder)
    shutil.rmtree(origin)
    return folder


@pytest.mark.parametrize("source", ["run", "copied checkpoint", "export"])
def test_commands_need_only_a_copy_of_the_run(elsewhere, source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, shard = str(elsewhere / source), str(elsewhere / "train.tar")
    embed = ["embed", "--checkpoint", model, "--shards", shard, "--what", "both", "--caption_key", "captions.name"]
    assert main([*embed, "--out", "embeddings", "--device", "cpu"]) == 0, capsys.readouterr().err
    search = ["search", "--embeddings", "embeddings", "--text", "red left", "--device", "cpu"]
    capsys.readouterr()
    assert main(search) == 0, capsys.readouterr().err
    assert "train.tar" in capsys.readouterr().out
    retrieval = ["eval", "retrieval", "--checkpoint", model, "--data", shard, "--caption_key", "captions.name"]
    assert main([*retrieval, "--out", "results"]) == 0, capsys.readouterr().err
    assert main(["export", model, "--out", "again"]) == 0, capsys.readouterr().err
    monkeypatch.setattr("prolip.explore.serve.serve", read_captions)
    served.clear()
    assert main(["explore", "--checkpoint", model, "--shards", shard, "--caption_key", "captions.name"]) == 0
    assert len(served) == 1
    exported, opened = load("again"), load(model)
    assert exported.fingerprint() == opened.fingerprint()
