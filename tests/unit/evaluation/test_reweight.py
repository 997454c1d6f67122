"""`prolip bprw` from the command line to its files, on a tiny model."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.support.refusals import refusal_of
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.evaluation.reweight import class_lines, load_prompt_weights, save_prompt_weights
from prolip.metrics.bprw import PromptWeights
from prolip.models import ARCHITECTURES


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its tokenizer and five templates."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "run", folder / "tokenizer.json", ARCHITECTURES["demo"].text.context_length)
    (folder / "five.txt").write_text("{}\na picture of {}\nmy {}\na picture: {}\n{}, mine\n", encoding="utf-8")
    return folder


def words_for(lab: Path, data: Path, *more: str) -> list[str]:
    shards = str(data / "test-openmoji-*.tar")
    return [*f"bprw --checkpoint {lab}/run --shards".split(), shards, "--out", str(data / "out"), *more]


def test_bprw_prints_weights_and_writes_files_from_a_run(lab, emoji_data, capsys):
    assert main(words_for(lab, emoji_data, "--class_key", "group", "--templates", str(lab / "five.txt"))) == 0
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


def test_class_names_from_a_file_and_labelled_images_are_used(lab, emoji_data, capsys):
    names, templates = emoji_data / "names.txt", emoji_data / "templates.txt"
    names.write_text("travel-and-places\n\nanimals-and-nature\nfood-and-drink\n", encoding="utf-8")
    templates.write_text("a picture of {c}\n{}\n", encoding="utf-8")
    more = f"--classnames {names} --templates {templates} --class_key group --vote labelled".split()
    assert main(words_for(lab, emoji_data, *more, "--num_neighbors", "4", "--observations", "expected")) == 0
    assert "top-1 of 24 images" in capsys.readouterr().out
    assert main(words_for(lab, emoji_data, *more, "--num_neighbors", "99")) == 0
    assert "every image voted" in capsys.readouterr().out
    assert main(words_for(lab, emoji_data, "--classnames", str(names), "--templates", "simple")) == 0
    assert "top-1" not in capsys.readouterr().out  # nothing says what the images are


def test_weights_that_have_not_converged_are_a_warning(lab, emoji_data, capsys):
    words = words_for(
        lab, emoji_data, "--class_key", "group", "--templates", str(lab / "five.txt"), "--max_rounds", "1"
    )
    assert main(words) == 0
    assert "warning: the weights of 3 classes may still move after 1 rounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("class_key", []),
        ("class_key", ["--classnames", "imagenet", "--vote", "labelled"]),
        ("class_key", ["--class_key", "group", "--classnames", "imagenet"]),
        ("classnames", ["--class_key", "group", "--classnames", "absent"]),
        ("templates", ["--class_key", "group", "--templates", "absent"]),
        ("num_neighbors", ["--class_key", "group", "--num_neighbors", "37"]),
    ],
)
def test_unusable_options_are_refused(lab, emoji_data, field, more, capsys):
    assert main(words_for(lab, emoji_data, *more)) == 2
    assert field in capsys.readouterr().err.splitlines()[-1].split(":")[1]


def test_weights_load_from_their_file(tmp_path):
    draws = torch.rand(3, 2)
    found = PromptWeights(draws, torch.rand(3, 4), torch.rand(3, 4), torch.arange(3))
    save_prompt_weights(found, tmp_path / "new" / "weights", {"classnames": ["größer", "b"]})
    assert all(map(torch.equal, found, load_prompt_weights(tmp_path / "new" / "weights")))
    (tmp_path / "text").write_text("nothing of the kind")
    with refusal_of(str(tmp_path / "text")):
        load_prompt_weights(tmp_path / "text")


def test_no_prompt_is_listed_as_winner_and_loser():
    lines = class_lines(["x"], ["a", "b", "c"], torch.tensor([[0.2, 0.5, 0.3]]), 3)
    assert lines[1:] == ["x", "  won   0.5000 'b'", "  lost  0.2000 'a'"]
    assert class_lines(["x"], ["a"], torch.ones(1, 1), 3)[2:] == ["  won   1.0000 'a'", "  lost  1.0000 'a'"]
