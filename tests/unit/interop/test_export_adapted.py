"""Adapted models are exported: two files and a card, or both towers with their heads as ONNX files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tests.support.datacomp_sets import write_open_clip
from tests.support.frozen_pairs import made_up, write_npz
from tests.support.untrained_run import write_run
from tokenizers import Tokenizer

import prolip
from prolip.cli import main
from prolip.models.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS

TEXTS = ["a photo of a red fox", "a car"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of open_clip, adapted."""
    folder = tmp_path_factory.mktemp("lab")
    frozen = write_open_clip(folder / "clip")
    pairs = ["--embeddings", str(write_npz(folder / "pairs.npz", *made_up(30, 16))), "--checkpoint", frozen]
    assert main(["adapt", *pairs, "--out", str(folder / "model"), "--heads.steps", "3", "--heads.hidden", "4"]) == 0
    return folder


def test_the_two_files_are_copied_with_a_card(lab: Path, tmp_path: Path) -> None:
    assert (
        main(["export", str(lab / "model"), "--out", str(tmp_path / "out"), "--licence", "mit", "--name", "Mine"]) == 0
    )
    names = {ADAPTER_FILE, ADAPTER_WEIGHTS, "README.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Mine" in card
    assert "license: mit" in card
    assert "open_clip:local-dir:" in card
    ours, theirs = (
        prolip.load(folder, device="cpu").encode_texts(TEXTS) for folder in (lab / "model", tmp_path / "out")
    )
    assert torch.equal(ours.log_var, theirs.log_var)
    assert main(["export", str(tmp_path / "out"), "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / ADAPTER_FILE).read_text())["adapter"]["method"] == "heads"


def test_adapted_models_are_refused_for_the_transformers_format(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(lab / "model"), "--out", str(tmp_path / "out"), "--format", "transformers"]
    assert main(words) == 2
    assert "can be written as prolip or onnx" in capsys.readouterr().err


@pytest.mark.usefixtures("one_table")
def test_onnx_files_of_an_adapted_model_include_the_heads(lab: Path, tmp_path: Path) -> None:
    assert main(["export", str(lab / "model"), "--out", str(tmp_path / "onnx"), "--format", "onnx"]) == 0
    model = prolip.load(lab / "model", device="cpu")
    images = torch.randn(3, 3, *model.preprocess.size, generator=torch.Generator().manual_seed(0))
    ids = model.tokenize(TEXTS)
    for name, key, given, expected in (
        ("image", "images", images, model.encode_images(images, progress=False)),
        ("text", "token_ids", ids, model.encode_texts(TEXTS, progress=False)),
    ):
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        mean, log_var = session.run(None, {key: given.numpy()})
        np.testing.assert_allclose(mean, expected.mean.numpy(), atol=1e-4)
        np.testing.assert_allclose(log_var, expected.log_var.numpy(), atol=1e-4)
        known = session.get_modelmeta().custom_metadata_map
        assert float(known["logit_scale"]) == pytest.approx(model.logit_scale, rel=1e-5)
        assert float(known["logit_bias"]) == pytest.approx(model.logit_bias, rel=1e-5)
    card = (tmp_path / "onnx" / "README.md").read_text()
    assert "| images | resized as `shortest` (bicubic) before the tower |" in card
    assert "| variances |" not in card


def test_onnx_files_of_an_adapted_run_have_its_tokenizer(tmp_path: Path) -> None:
    write_run(tmp_path / "run", tmp_path / "own.json", context_length=8)
    dim = prolip.load(tmp_path / "run").encode_texts("").mean.shape[1]
    pairs = ["--embeddings", str(write_npz(tmp_path / "pairs.npz", *made_up(30, dim)))]
    run = ["--checkpoint", str(tmp_path / "run"), "--heads.steps", "1", "--heads.hidden", "4"]
    assert main(["adapt", *pairs, *run, "--out", str(tmp_path / "model")]) == 0
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "onnx"), "--format", "onnx"]) == 0
    own = Tokenizer.from_file(str(tmp_path / "onnx" / "tokenizer.json")).encode("a picture of food").ids
    assert own == prolip.load(tmp_path / "run").tokenize("a picture of food")[0].tolist()


@pytest.mark.usefixtures("one_table")
def test_the_card_says_how_the_frozen_model_resizes_images_and_what_variances_mean(tmp_path: Path) -> None:
    """The files cannot: outside, an image was resized as for other models, and a Laplace model's CSD was computed."""
    frozen = write_open_clip(tmp_path / "clip", {"resize_mode": "squash", "interpolation": "bilinear"})
    pairs = ["--embeddings", str(write_npz(tmp_path / "pairs.npz", *made_up(30, 16))), "--checkpoint", frozen]
    assert main(["adapt", *pairs, "--out", str(tmp_path / "model"), "--method", "laplace"]) == 0
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "onnx"), "--format", "onnx"]) == 0
    card = (tmp_path / "onnx" / "README.md").read_text()
    assert "| images | resized as `squash` (bilinear) before the tower |" in card
    assert "| variances | what the model has not learned; they are no distance: compare means, not CSD |" in card
