"""`prolip eval decisions` against the functions behind it; no fold uses its own labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.support.class_folders import LABELS, write_calibrated_world

import prolip
from prolip.cli import main
from prolip.data import StoreConfig
from prolip.decisions import auroc, equal_mass_calibration_error, excess_risk_coverage, logit_doubts
from prolip.errors import UserError
from prolip.pretrained.model import Model
from prolip.suites.config import DecisionsOptions
from prolip.suites.decision_scores import answer_images, find_doubts, fold_calibrations
from prolip.suites.zero_shot import open_classes


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("decisions")
    write_calibrated_world(root)
    return root


@pytest.fixture(scope="module")
def model(lab: Path) -> Model:
    return prolip.load(lab / "run", device="cpu")


@pytest.fixture(scope="module")
def figures(lab: Path) -> dict[str, Any]:
    """The figures of results.json by task and metric."""
    words = ["--checkpoint", str(lab / "run"), "--data", str(lab / "mine"), "--elsewhere", str(lab / "elsewhere")]
    assert (
        main(["eval", "decisions", *words, "--out", str(lab / "out"), "--num_resamples", "5", "--device", "cpu"]) == 0
    )
    found = json.loads((lab / "out" / "results.json").read_text())
    assert "Risk and coverage" in (lab / "out" / "results.html").read_text()
    return {f"{row['task']}: {row['metric']}": row for row in found["figures"]}


def test_figures_are_those_of_the_functions(lab: Path, model: Model, figures: dict[str, Any]) -> None:
    images, texts = (
        model.encode_images(lab / "mine"),
        model.encode_texts([f"a photo of a {label}." for label in LABELS]),
    )
    truth = torch.arange(3).repeat_interleave(40)
    logits = model.logit_scale * (images.mean @ texts.mean.T - texts.total_var / 2)
    wrong = logits.argmax(dim=1) != truth
    expected = {"accuracy": float((~wrong).double().mean())}
    doubts = {**logit_doubts(logits), "image's variance": images.total_var.double()}
    for name, doubt in doubts.items():
        expected[f"AUROC of errors by {name}"] = auroc(doubt, wrong)
        expected[f"excess area under risk and coverage by {name}"] = excess_risk_coverage(doubt, ~wrong)
    expected["AUROC of errors, energy − max probability"] = auroc(doubts["energy"], wrong) - auroc(
        doubts["max probability"], wrong
    )
    confidence = logits.double().softmax(dim=1).amax(dim=1)
    expected["calibration error, own scale"] = equal_mass_calibration_error(confidence, ~wrong)
    for metric, value in expected.items():
        row = figures[f"mine: {metric}"]
        (found,), (low,) = row["value"].values(), row["low"].values()
        assert found == pytest.approx(value, abs=2e-3), metric
        assert low is not None, f"{metric} has an interval"


def test_images_from_elsewhere_are_told_apart(figures: dict[str, Any]) -> None:
    for other in ("elsewhere", "noise"):
        row = figures[f"mine, {other}: AUROC of images from elsewhere by Mahalanobis distance"]
        assert row["num_items"] == 120 + (6 if other == "elsewhere" else 500)
        (value,) = row["value"].values()
        assert value > 0.9


def test_a_fold_is_calibrated_on_the_others(lab: Path, model: Model) -> None:
    """If the labels of one fold are all wrong, nothing changes that is said about its images."""
    options = DecisionsOptions(checkpoint=(), data=(), num_folds=3)
    data = open_classes(str(lab / "mine"), lab, StoreConfig(), ())
    answered = answer_images(model, data, options)
    logits = 2 * F.one_hot(answered.truth) + torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    answered = answered._replace(evidence=answered.evidence._replace(logits=logits))
    changed = answered._replace(truth=torch.where(answered.folds == 1, (answered.truth + 1) % 3, answered.truth))
    here = answered.folds == 1
    said = []
    for some in (answered, changed):
        folded = fold_calibrations(model, data, some, options)
        said.append((folded, find_doubts(model, some, folded, None)))
    (first, doubts), (second, others) = said
    assert torch.bincount(answered.folds).tolist() == [40, 40, 40]
    torch.testing.assert_close(first.logits[here], second.logits[here])
    assert not first.logits[~here].equal(second.logits[~here])
    for key, sets in first.sets.items():
        assert sets[here].equal(second.sets[key][here])
    for name, doubt in doubts.items():
        torch.testing.assert_close(doubt[here], others[name][here], msg=name)
    assert not doubts["probability and variance"].equal(others["probability and variance"])


def test_too_few_images_and_folds(lab: Path, model: Model) -> None:
    with pytest.raises(UserError, match="num_folds is 1: it must be at least 2"):
        DecisionsOptions(checkpoint=(), data=(), num_folds=1)
    data = open_classes(str(lab / "mine"), lab, StoreConfig(), ())
    with pytest.raises(UserError, match="has 120 images: 31 folds need four each"):
        answer_images(model, data, DecisionsOptions(checkpoint=(), data=(), num_folds=31))
