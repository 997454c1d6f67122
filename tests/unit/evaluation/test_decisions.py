"""`prolip eval decisions` against the functions behind it; no fold uses its own labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.support.class_folders import LABELS, write_calibrated_world
from tests.support.untrained_run import write_run_with

import prolip
from prolip.cli import main
from prolip.data import StoreConfig
from prolip.decisions import Subject, fit_calibration, logit_scores
from prolip.errors import UserError
from prolip.evaluation.config import DecisionsOptions
from prolip.evaluation.datasets import open_classes
from prolip.evaluation.decision_rows import fitting_note, frequency_rows
from prolip.evaluation.decision_scores import answer_images, find_doubts, fold_calibrations
from prolip.evaluation.results import row_of_items
from prolip.metrics.statistics import auroc, equal_mass_error, excess_risk_coverage, value_of
from prolip.pretrained.model import Model


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


def test_decision_figures_equal_those_of_the_functions(lab: Path, model: Model, figures: dict[str, Any]) -> None:
    images, texts = (
        model.encode_images(lab / "mine"),
        model.encode_texts([f"a photo of a {label}." for label in LABELS]),
    )
    truth = torch.arange(3).repeat_interleave(40)
    logits = model.logit_scale * (images.mean @ texts.mean.T - texts.total_var / 2)
    wrong = logits.argmax(dim=1) != truth
    expected = {"accuracy": float((~wrong).double().mean())}
    doubts = {**logit_scores(logits), "image's variance": images.total_var.double()}
    for name, doubt in doubts.items():
        expected[f"AUROC of errors by {name}"] = value_of(auroc, doubt, wrong)
        expected[f"excess area under risk and coverage by {name}"] = value_of(excess_risk_coverage, doubt, ~wrong)
    expected["AUROC of errors, energy − max probability"] = value_of(auroc, doubts["energy"], wrong) - value_of(
        auroc, doubts["max probability"], wrong
    )
    confidence = logits.double().softmax(dim=1).amax(dim=1)
    expected["calibration error, own scale"] = value_of(equal_mass_error, confidence, ~wrong)
    for metric, value in expected.items():
        row = figures[f"mine: {metric}"]
        (found,), (low,) = row["value"].values(), row["low"].values()
        assert found == pytest.approx(value, abs=2e-3), metric
        assert low is not None, f"{metric} has an interval"


def test_out_of_distribution_images_are_detected_by_mahalanobis_distance(figures: dict[str, Any]) -> None:
    for other in ("elsewhere", "noise"):
        row = figures[f"mine, {other}: AUROC of images from elsewhere by Mahalanobis distance"]
        assert row["num_items"] == 120 + (6 if other == "elsewhere" else 500)
        (value,) = row["value"].values()
        assert value > 0.9


@pytest.mark.parametrize("option", ["elsewhere", "known"])
def test_a_folder_without_an_image_is_named_with_its_option(
    lab: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    words = ["--data", str(lab / "mine"), f"--{option}", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert main(["eval", "decisions", "--checkpoint", str(lab / "run"), *words]) == 2
    assert f"{option} is {tmp_path / 'none'}: " in capsys.readouterr().err


def test_images_from_elsewhere_cannot_be_called_noise(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the random pixels of that name would replace them."""
    shutil.copytree(lab / "elsewhere", tmp_path / "noise")
    words = ["--data", str(lab / "mine"), "--elsewhere", str(tmp_path / "noise"), "--out", str(tmp_path / "out")]
    assert main(["eval", "decisions", "--checkpoint", str(lab / "run"), *words, "--device", "cpu"]) == 2
    assert f"elsewhere has {tmp_path / 'noise'}: rename it, since noise is" in capsys.readouterr().err


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
    for one, two in ((first.even, second.even), (first.with_frequencies, second.with_frequencies)):
        torch.testing.assert_close(one.logits[here], two.logits[here])
        assert not one.logits[~here].equal(two.logits[~here])
        for key, sets in one.sets.items():
            assert sets[here].equal(two.sets[key][here])
    for name, doubt in doubts.items():
        torch.testing.assert_close(doubt[here], others[name][here], msg=name)
    assert not doubts["probability and variance"].equal(others["probability and variance"])


def test_label_frequencies_are_estimated_on_the_other_folds(lab: Path, model: Model) -> None:
    """Logits that a contrastive loss would learn, and labels of which one is ten times as frequent as the others: with
    the frequencies more answers are right."""
    options = DecisionsOptions(checkpoint=(), data=(), num_folds=3)
    answered = answer_images(model, open_classes(str(lab / "mine"), lab, StoreConfig(), ()), options)
    draws = torch.Generator().manual_seed(0)
    truth = torch.where(torch.rand(120, generator=draws) < 0.8, 0, torch.randint(1, 3, (120,), generator=draws))
    seen = F.one_hot(truth, 3) * 1.5 + torch.randn(120, 3, generator=draws) * 1.5**0.5
    answered = answered._replace(truth=truth, evidence=answered.evidence._replace(logits=seen))
    found = fold_calibrations(model, open_classes(str(lab / "mine"), lab, StoreConfig(), ()), answered, options)
    own, known = (
        (logits.argmax(dim=1) == truth).double() for logits in (found.even.logits, found.with_frequencies.logits)
    )
    rows = {
        row.metric: row
        for row in frequency_rows("task", row_of_items("task", "accuracy", own), found.with_frequencies, truth)
    }
    assert rows["accuracy, label frequencies"].value == float(known.mean()) > float(own.mean()) + 0.1
    assert rows["accuracy, label frequencies − own"].value == pytest.approx(float(known.mean() - own.mean()))
    within = found.with_frequencies.sets["lac", 0.9]
    assert rows["label sets at 90% by lac, label frequencies: size"].value == float(within.sum(dim=1).double().mean())
    here, subject = answered.folds == 0, Subject("", "", "", list(LABELS), [])
    labelled, _ = fit_calibration(answered.evidence.rows(~here), truth[~here], subject, seed=options.seed)
    expected = labelled.label_sets(labelled.with_prior(answered.evidence.rows(here)), 0.9)
    assert within[here].equal(expected)
    # Several hundred images are needed to promise few errors; with the frequencies 80 are enough for one in five.
    assert float(found.with_frequencies.answered[0.2].double().mean()) > float(found.even.answered[0.2].double().mean())


def test_too_few_images_or_folds_are_refused(lab: Path, model: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="num_folds is 1: it must be at least 2"):
        DecisionsOptions(checkpoint=(), data=(), num_folds=1)
    data = open_classes(str(lab / "mine"), lab, StoreConfig(), ())
    with pytest.raises(
        UserError, match=r"num_folds is 31: .*mine has 120 labelled images, and that many folds need at least 124"
    ):
        answer_images(model, data, DecisionsOptions(checkpoint=(), data=(), num_folds=31))
    options = DecisionsOptions(checkpoint=(), data=(), num_folds=2)
    for name in ("one", "two"):
        (tmp_path / "few" / name).mkdir(parents=True)
    images = sorted((lab / "mine").rglob("*.png"))[:14]
    for place, image in enumerate(images[:13]):
        shutil.copy(image, tmp_path / "few" / ("one", "two")[place % 2] / f"{place}.png")
    few_data = open_classes(str(tmp_path / "few"), tmp_path / "made", StoreConfig(), ())
    with pytest.raises(UserError, match="has 13 labelled images, and that many folds need at least 14"):
        answer_images(model, few_data, options)
    shutil.copy(images[13], tmp_path / "few" / "one" / "13.png")
    few_data = open_classes(str(tmp_path / "few"), tmp_path / "made", StoreConfig(), ())
    fold_calibrations(model, few_data, answer_images(model, few_data, options), options)
    answered = answer_images(model, data, options)
    few = answered._replace(evidence=answered.evidence.rows(torch.arange(8)), truth=answered.truth[:8])
    with pytest.raises(UserError, match=r"^the other folds of .*mine: "):
        fold_calibrations(model, data, few._replace(folds=torch.arange(8) % 2), options)


def test_the_results_say_what_was_fitted_on_what(lab: Path, figures: dict[str, Any]) -> None:
    (note,) = json.loads((lab / "out" / "results.json").read_text())["notes"].values()
    (said,) = note
    assert said.startswith("mine: 120 images of 3 labels, 40 each, in 5 folds. ")
    assert "from the 96 images of the other folds: 28 fit the temperature, " in said
    assert " and 68 give the thresholds of label sets " in said
    assert said in (lab / "out" / "results.md").read_text()


def test_few_images_and_known_ones_are_named_as_what_was_fitted(lab: Path, model: Model) -> None:
    """Folds of unlike sizes, a label without an image, a model without variances, images of the training."""
    options = DecisionsOptions(checkpoint=(), data=(), num_folds=3)
    data = open_classes(str(lab / "mine"), lab, StoreConfig(), ())
    answered = answer_images(model, data, options)
    some = torch.tensor([*range(25), *range(40, 44)])
    evidence, images = answered.evidence.rows(some), answered.images.rows(some)
    few = answered._replace(images=images, evidence=evidence, truth=answered.truth[some], folds=torch.arange(29) % 3)
    folded = fold_calibrations(model, data, few, options)
    doubts = find_doubts(model, few, folded, None)
    said = fitting_note("few", few, folded, doubts, 0)
    assert said.startswith(
        "few: 29 images of 3 labels, 0 to 25 each, in 3 folds. What is fitted for a fold comes from "
    )
    assert "the 19 to 20 images of the other folds: 5 to 6 fit the temperature" in said
    assert " and 14 give the thresholds" in said
    assert (
        '. All of them fit "probability and variance". The distance to neighbours is measured from all images' in said
    )
    del doubts["probability and variance"]
    other = fitting_note("few", few, folded, doubts, 1437)
    assert "errors. The distance to neighbours is measured from the 1,437 images of --known. Images from" in other


def test_doubts_of_other_models_are_reported_beside_the_models(lab: Path, model: Model) -> None:
    """Their doubts are about the model's own answers; the same model beside itself differs in nothing."""
    write_run_with(lab / "other", lab / "tokenizer.json", context_length=8, seed=1)
    words = ["--checkpoint", str(lab / "run"), "--data", str(lab / "mine"), "--out", str(lab / "beside")]
    words += ["--beside", str(lab / "run"), "--beside", str(lab / "other"), "--num_resamples", "20"]
    assert main(["eval", "decisions", *words, "--device", "cpu"]) == 0
    rows = json.loads((lab / "beside" / "results.json").read_text())["figures"]
    found = {f"{row['task']}: {row['metric']}": row for row in rows}
    other = prolip.load(lab / "other", device="cpu")
    truth = torch.arange(3).repeat_interleave(40)
    texts, images = (
        model.encode_texts([f"a photo of a {label}." for label in LABELS]),
        model.encode_images(lab / "mine"),
    )
    wrong = (model.logit_scale * (images.mean @ texts.mean.T - texts.total_var / 2)).argmax(dim=1) != truth
    variance = other.encode_images(lab / "mine").total_var.double()
    (value,) = found["mine: AUROC of errors by image's variance of other"]["value"].values()
    assert value == pytest.approx(value_of(auroc, variance, wrong), abs=1e-3)
    for measure in ("AUROC of errors, max probability of run − max probability", "accuracy, by run − own"):
        row = found[f"mine: {measure}"]
        assert [*row["value"].values(), *row["low"].values(), *row["high"].values()] == pytest.approx([0, 0, 0])
    row = found["mine: negative log-likelihood, by other − own scale"]
    (low,), (value,), (high,) = row["low"].values(), row["value"].values(), row["high"].values()
    assert low < value < high
    assert found["mine: AUROC of errors, image's variance of other − max probability"]["main"]
    assert "mine, noise: AUROC of images from elsewhere by image's variance of other" in found
    assert "mine: label sets of other at 90% by lac: size" in found
