"""The programs in examples/, on a small set of emoji and a small model."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import ROOT
from tests.support.emoji_build import build_made_up
from tests.support.hub import serving
from tests.support.released_hub import write_released
from tests.support.untrained_run import write_run_with

import prolip
from prolip import cli
from prolip.models.released import find_released


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with what the demo leaves behind: data/emoji, and an untrained model as runs/demo."""
    folder = tmp_path_factory.mktemp("demo")
    build_made_up(folder / "data/emoji")
    write_run_with(folder / "runs/demo", folder / "data/emoji/tokenizer.json", 20)
    return folder


@pytest.fixture
def run(demo, monkeypatch, capsys):
    """Runs an example in the demo's folder; what it printed."""

    def run_example(name, *arguments):
        monkeypatch.chdir(demo)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        assert not runpy.run_path(str(ROOT / "examples" / name))["main"]()
        return capsys.readouterr().out

    return run_example


def test_embed_and_compare_prints_images_captions_and_inclusions(run):
    captions = ["objects", "a tool", "thing 1"]
    lines = run("embed_and_compare.py", *captions, "--show", "3").splitlines()
    assert len(lines) == 3 + 3 + 2
    assert all(
        re.fullmatch(r"image \d: uncertainty [\d.]+, nearest caption '(objects|a tool|thing 1)'", line)
        for line in lines[:3]
    )
    assert [line.split(":")[0] for line in lines[3:6]] == [repr(caption) for caption in captions]
    assert re.fullmatch(r"'a tool' in 'objects': [+-][\d.]+", lines[6])


RELEASED = "ProLIP-ViT-B-16-DC-1B-12_8B"


@pytest.mark.usefixtures("one_table")
def test_onnx_embed_prints_the_models_numbers(run, demo, tmp_path, monkeypatch):
    """Of an image that is scaled and cropped, and of captions that need cleaning, cutting and padding.

    test_onnx.py compares the towers, unit/interop/test_tokenizer_json_complete.py the tokenizer.
    """
    monkeypatch.chdir(demo)
    released = find_released(RELEASED)
    assert released is not None
    write_released(tmp_path / "hub" / "models", released)
    noise = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((90, 50)).save("image.png")
    captions = ["objects", "  A  tool ", "thing " * 100, "a tabby cat and a DOG!"]
    out = str(tmp_path / "onnx")
    with serving(tmp_path, tmp_path / "cache"):
        assert cli.main(["export", RELEASED, "--format", "onnx", "--onnx.uint8_images", "--out", out]) == 0
        model = prolip.load(RELEASED, device="cpu")
        image, texts = model.encode_images("image.png"), model.encode_texts(captions)
    assert {path.name for path in Path(out).iterdir()} == {"README.md", "image.onnx", "text.onnx", "tokenizer.json"}
    card = (tmp_path / "onnx" / "README.md").read_text()
    assert re.search(r"\| image\.onnx \| \d\.\de-\d\d in a mean, ", card)
    height, width = model.preprocess.sides
    assert f"images: uint8 [batch, {height}, {width}, 3]" in card

    lines = run("onnx_embed.py", out, "image.png", *captions).splitlines()[-5:]  # after the export's
    found = [[float(number) for number in re.findall(r"(?:uncertainty|CSD) ([\d.]+)", line)] for line in lines]
    distances = prolip.csd(image, texts)[0]
    expected = [[float(var), float(csd)] for var, csd in zip(texts.total_var, distances, strict=True)]
    expected.insert(0, [float(image.total_var[0])])
    assert [len(numbers) for numbers in found] == [1, 2, 2, 2, 2]
    assert found == [pytest.approx(numbers, rel=1e-3, abs=2e-4) for numbers in expected]


def test_search_prints_the_best_images_first(run):
    lines = run("search.py", "a tool", "thing 3", "--k", "4").splitlines()
    assert lines[0] == "a tool"
    assert lines[5] == "thing 3"
    scores = [float(line.split("score ")[1].split()[0]) for line in lines[1:5]]
    assert scores == sorted(scores, reverse=True)


def test_fine_tune_changes_the_uncertainty_and_keeps_the_means(run, demo):
    flags = ("--samples_seen", "64", "--batch_size", "16", "--captions", "objects", "--out", "runs/tuned")
    assert re.fullmatch(r"'objects': uncertainty [\d.]+ before, [\d.]+ after\n", run("fine_tune.py", *flags))
    before, after = (prolip.load(demo / "runs" / name).encode_texts("objects") for name in ("demo", "tuned"))
    assert torch.equal(before.mean, after.mean)
    assert not torch.equal(before.log_var, after.log_var)


def test_own_training_loop_resumes_exactly(run, demo):
    flags = ("--batch_size", "8")
    run("own_training_loop.py", *flags, "--checkpoint", "whole.pt", "--steps", "4")
    for steps in (1, 3):
        assert "step 0: loss" in run("own_training_loop.py", *flags, "--checkpoint", "parts.pt", "--steps", str(steps))
    whole, parts = (torch.load(demo / name, weights_only=True) for name in ("whole.pt", "parts.pt"))
    assert whole["cursor"] == parts["cursor"]
    assert all(torch.equal(tensor, parts["model"][name]) for name, tensor in whole["model"].items())
