"""`prolip eval decisions` against the functions behind it; no fold uses its own labels."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.support.class_folders import LABELS, write_calibrated_world
from tests.support.refusals import refusal_of
from tests.support.untrained_run import write_run_with

import prolip
from prolip.cli import main
from prolip.data import StoreConfig
from prolip.datasets.data_set import open_classes
from prolip.evaluation.config import DecisionsOptions
from prolip.evaluation.decisions import answer_images, decide, fold_scores, set_rows
from prolip.evaluation.results import RowId
from prolip.metrics import aggregate_prompts, logit_scores
from prolip.metrics.config import DEFAULT_TEMPLATES
from prolip.metrics.prompts import encode_prompts
from prolip.metrics.statistics import auroc, equal_mass_error, excess_risk_coverage, value_of


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root = tmp_path_factory.mktemp("decisions")
    write_calibrated_world(root)
    write_run_with(root / "other", root / "tokenizer.json", context_length=8, seed=1)
    return root


@pytest.fixture(scope="module")
def model(lab):
    return prolip.load(lab / "run", device="cpu")


@pytest.fixture(scope="module")
def answered(lab, model):
    data = open_classes(str(lab / "mine"), StoreConfig(), ())
    return answer_images(model, data, DecisionsOptions(checkpoint=(), data=(), num_folds=3))


@pytest.fixture(scope="module")
def figures(lab):
    """The figures of results.json."""
    words = f"--checkpoint {lab}/run --data {lab}/mine --out_of_distribution {lab}/elsewhere".split()
    words += f"--beside {lab}/run --beside {lab}/other --num_resamples 20".split()
    assert main(["eval", "decisions", *words, *f"--out {lab}/out --device cpu".split()]) == 0
    found = json.loads((lab / "out" / "results.json").read_text())
    assert "Risk and coverage" in (lab / "out" / "results.html").read_text()
    return {RowId(**row["id"]): row for row in found["figures"]}


def test_decision_figures_equal_those_of_the_functions(lab, model, figures):
    images = model.encode_images(lab / "mine")
    texts = aggregate_prompts(encode_prompts(DEFAULT_TEMPLATES, LABELS, model.encode_texts))
    truth = torch.arange(3).repeat_interleave(40)
    logits = model.logit_scale * (images.mean @ texts.weight.T - texts.total_var / 2)
    wrong = logits.argmax(dim=1) != truth
    scores = {(name, ""): score for name, score in logit_scores(logits).items()}
    scores["image_variance", ""] = images.total_var.double()
    variance = prolip.load(lab / "other", device="cpu").encode_images(lab / "mine").total_var.double()
    scores["image_variance", "other"] = variance
    expected = {RowId("accuracy"): float((~wrong).double().mean())}
    for (by, of), score in scores.items():
        expected[RowId("error_auroc", by=by, of=of)] = value_of(auroc, score, wrong)
        expected[RowId("excess_risk_coverage", by=by, of=of)] = value_of(excess_risk_coverage, score, ~wrong)
    energy, best = (value_of(auroc, scores[name, ""], wrong) for name in ("energy", "max_probability"))
    expected[RowId("error_auroc", by="energy", minus="max_probability")] = energy - best
    confidence = logits.double().softmax(dim=1).amax(dim=1)
    expected[RowId("calibration_error", by="own_scale")] = value_of(equal_mass_error, confidence, ~wrong)
    for id, value in expected.items():
        row = figures[replace(id, data="mine")]
        (found,), (low,) = row["value"].values(), row["low"].values()
        assert found == pytest.approx(value, abs=2e-3), id
        assert low is not None, id


def test_a_model_beside_itself_differs_in_nothing(figures):
    best = "max_probability"
    for id in (RowId("error_auroc", by=best, of="run", minus=best), RowId("accuracy", of="run", minus="")):
        row = figures[replace(id, data="mine")]
        assert [*row["value"].values(), *row["low"].values(), *row["high"].values()] == pytest.approx([0, 0, 0])
    assert RowId("set_size", data="mine", by="lac", of="other", at=0.9) in figures
    assert RowId("ood_auroc", data="mine", by="image_variance", of="other", other="noise") in figures


def test_out_of_distribution_images_are_detected_by_mahalanobis_distance(figures):
    for other, count in (("elsewhere", 6), ("noise", 500)):
        row = figures[RowId("ood_auroc", data="mine", by="mahalanobis_distance", other=other)]
        assert row["num_items"] == 120 + count
        (value,) = row["value"].values()
        assert value > 0.9


def test_a_fold_is_calibrated_on_the_others(answered):
    """If the labels of one fold are all wrong, nothing changes that is said about its images."""
    logits = 2 * F.one_hot(answered.truth) + torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    answered = answered._replace(evidence=answered.evidence._replace(logits=logits))
    changed = answered._replace(truth=torch.where(answered.folds == 1, (answered.truth + 1) % 3, answered.truth))
    here = answered.folds == 1
    assert torch.bincount(answered.folds).tolist() == [40, 40, 40]
    for prior in ("even", "labelled"):
        one, two = (decide(some, prior) for some in (answered, changed))
        torch.testing.assert_close(one.logits[here], two.logits[here])
        assert not one.logits[~here].equal(two.logits[~here])
        for key, sets in one.sets.items():
            assert sets[here].equal(two.sets[key][here])
        scores, others = fold_scores(answered, one, None), fold_scores(changed, two, None)
        for name, score in scores.items():
            torch.testing.assert_close(score[here], others[name][here], msg=name)
        for name in ("probability_and_variance", "class_gaussians"):
            assert not scores[name].equal(others[name])
        both = (scores["max_probability"] + scores["class_gaussians"].sigmoid()) / 2
        torch.testing.assert_close(scores["probability_and_class_gaussians"], both)


def test_label_frequencies_of_the_other_folds_make_more_answers_right(answered):
    """Logits that a contrastive loss would learn, and labels of which one is ten times as frequent as the others."""
    draws = torch.Generator().manual_seed(0)
    truth = torch.where(torch.rand(120, generator=draws) < 0.8, 0, torch.randint(1, 3, (120,), generator=draws))
    seen = F.one_hot(truth, 3) * 1.5 + torch.randn(120, 3, generator=draws) * 1.5**0.5
    answered = answered._replace(truth=truth, evidence=answered.evidence._replace(logits=seen))
    even, frequent = (decide(answered, prior, [("lac", 0.9)]) for prior in ("even", "labelled"))
    own, known = (float((one.logits.argmax(dim=1) == truth).double().mean()) for one in (even, frequent))
    assert known > own + 0.1
    rows = {row.id: row.value for row in set_rows(frequent, truth, truth == 0)}
    sizes = frequent.sets["lac", 0.9].sum(dim=1).double()
    assert rows[RowId("set_size", by="lac", at=0.9)] == float(sizes.mean())
    assert rows[RowId("answered", at=0.2)] == float(frequent.answered[0.2].double().mean()) > 0


def test_unusable_data_and_options_are_refused(lab, tmp_path, answered):
    few = answered._replace(evidence=answered.evidence.rows(torch.arange(8)), truth=answered.truth[:8])
    with refusal_of("data"):
        decide(few._replace(folds=torch.arange(8) % 2))
    (tmp_path / "none").mkdir()
    (tmp_path / "noise").mkdir()
    for option, folder in (("out_of_distribution", "none"), ("known", "none"), ("out_of_distribution", "noise")):
        words = f"--data {lab}/mine --{option} {tmp_path}/{folder} --out {tmp_path}/out".split()
        assert main([*f"eval decisions --checkpoint {lab}/run".split(), *words, "--device", "cpu"]) == 2
