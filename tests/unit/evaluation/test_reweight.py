"""`prolip bprw` from the command line to its files, on a tiny model."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.evaluation.prompt_weights import load_prompt_weights
from prolip.evaluation.reweight import class_lines
from prolip.models import ARCHITECTURES
from prolip.models.hub import save_pretrained
from prolip.pretrained.sources import load_network


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, the model in the hub's layout, and the same model as a run."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "run", folder / "tokenizer.json", ARCHITECTURES["demo"].text.context_length)
    save_pretrained(load_network(folder / "run"), folder / "hub")
    return folder


def words_for(lab: Path, data: Path, *more: str) -> list[str]:
    shards = str(data / "test-openmoji-*.tar")
    return ["bprw", "--checkpoint", str(lab / "run"), "--shards", shards, "--out", str(data / "out"), *more]


def test_bprw_prints_weights_and_writes_files_from_a_run(
    lab: Path, emoji_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_for(lab, emoji_data, "--class_key", "group", "--templates", "emoji")) == 0
    shown, progress = capsys.readouterr()
    assert "weights of 5 prompts per class; even weights would be 0.2000" in shown
    for name in ("animals-and-nature", "food-and-drink", "travel-and-places"):
        assert f"\n{name}\n  won " in shown
    assert shown.count("  lost ") == 3
    assert "top-1 of 36 images" in shown
    assert "may still move" not in shown
    assert "re-weighted over even weights, by mean: " in shown
    assert "% of resamples: " in shown
    assert "images: 36image" in progress
    assert all(f"{stage}: 100%" in progress for stage in ("prompts", "weights"))
    weights = load_prompt_weights(emoji_data / "out" / "prompt_weights.safetensors")
    assert weights.weights.shape == (3, 5)
    with safe_open(emoji_data / "out" / "prompt_weights.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["classnames"])[0] == "animals-and-nature"
        assert json.loads(file.metadata()["bprw"])["alpha"] == 5.0
    assert ET.parse(emoji_data / "out" / "prompt_weights.svg").getroot().tag.endswith("svg")


def test_bprw_gives_the_same_weights_for_the_hub_layout(lab: Path, emoji_data: Path) -> None:
    key = ("--class_key", "group", "--templates", "emoji")
    path = emoji_data / "out" / "prompt_weights.safetensors"
    assert main(words_for(lab, emoji_data, *key)) == 0
    run = load_prompt_weights(path).weights
    path.unlink()
    hub = ["--checkpoint", str(lab / "hub"), "--tokenizer", str(lab / "tokenizer.json")]
    assert main([*words_for(lab, emoji_data, *key), *hub]) == 0
    assert torch.equal(load_prompt_weights(path).weights, run)


def test_class_names_from_a_file_and_labelled_images_are_used(
    lab: Path, emoji_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, templates = emoji_data / "names.txt", emoji_data / "templates.txt"
    names.write_text("travel-and-places\n\nanimals-and-nature\nfood-and-drink\n", encoding="utf-8")
    templates.write_text("a picture of {c}\n{}\n", encoding="utf-8")
    more = ["--classnames", str(names), "--templates", str(templates), "--class_key", "group", "--vote", "labelled"]
    assert main(words_for(lab, emoji_data, *more, "--num_neighbors", "4", "--observations", "expected")) == 0
    assert "top-1 of 24 images" in capsys.readouterr().out
    assert main(words_for(lab, emoji_data, *more, "--num_neighbors", "99")) == 0
    assert "every image voted" in capsys.readouterr().out
    assert main(words_for(lab, emoji_data, "--classnames", str(names), "--templates", "simple")) == 0
    assert "top-1" not in capsys.readouterr().out  # nothing says what the images are


def test_weights_that_have_not_converged_are_a_warning(
    lab: Path, emoji_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_for(lab, emoji_data, "--class_key", "group", "--templates", "emoji", "--max_rounds", "1")
    assert main(words) == 0
    assert "warning: the weights of 3 classes may still move after 1 rounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "classnames is not given: class_key must name"),
        (["--classnames", "imagenet", "--vote", "labelled"], "vote is labelled: class_key must name"),
        (["--class_key", "nothing"], "sample test-openmoji-000: its json has no text or number at 'nothing'"),
        (["--class_key", "group", "--classnames", "imagenet"], "which is not a class name"),
        (["--class_key", "group", "--classnames", "absent"], "classnames is 'absent': it must be imagenet or a text"),
        (["--class_key", "group", "--classnames", sys.executable], "is not UTF-8"),
        (["--class_key", "group", "--templates", "absent"], "templates is 'absent': it must be imagenet, simple"),
        (["--class_key", "group", "--num_neighbors", "37"], "num_neighbors is 37: there are only 36 images"),
        (["--class_key", "group", "--show", "-1"], "show is -1: it must not be negative"),
        (["--class_key", "group", "--tokenizer", "clip"], "the tokenizer has 49408 tokens: the model has a table of"),
        (["--class_key", "group", "--checkpoint", "absent"], "absent"),
        (["--class_key", "group", "--shards", "absent.tar"], "absent.tar"),
        (["--class_key", "group", "--out", sys.executable, "--checkpoint", "absent"], "is a file, where a folder is"),
    ],
)
def test_bprw_errors_are_one_line(
    lab: Path, emoji_data: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_for(lab, emoji_data, *more)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("prolip bprw: ")
    assert message in last


def test_a_damaged_checkpoint_and_a_missing_tokenizer_are_errors(
    lab: Path, emoji_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = emoji_data / "bad.pt"
    bad.write_bytes(b"nothing of the kind")
    archive = emoji_data / "archive.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "b")
    for checkpoint, message in (
        (archive, "archive.pt is not a checkpoint: "),
        (bad, "is not a checkpoint"),
        (lab / "hub", "does not say which tokenizer"),
    ):
        assert main(words_for(lab, emoji_data, "--class_key", "group", "--checkpoint", str(checkpoint))) == 2
        assert message in capsys.readouterr().err
    assert main(words_for(lab, emoji_data, "--class_key", "group", "--checkpoint", str(emoji_data))) == 2
    assert "has no config.json" in capsys.readouterr().err


def test_no_prompt_is_listed_as_winner_and_loser() -> None:
    lines = class_lines(["x"], ["a", "b", "c"], torch.tensor([[0.2, 0.5, 0.3]]), 3)
    assert lines[1:] == ["x", "  won   0.5000 'b'", "  lost  0.2000 'a'"]
    assert class_lines(["x"], ["a"], torch.ones(1, 1), 3)[2:] == ["  won   1.0000 'a'", "  lost  1.0000 'a'"]
