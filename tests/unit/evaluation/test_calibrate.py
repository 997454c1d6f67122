"""`prolip calibrate`, and label sets and "don't know" of a calibrated model."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.support.class_folders import LABELS, write_calibrated_world
from tests.support.flags import latest
from tests.support.refusals import refusal_of
from tests.support.suite_results import values

import prolip
from prolip.calibration import load_calibration
from prolip.calibration.calibration import Subject, fit_calibration, save_calibration
from prolip.calibration.fitting import PairScale
from prolip.cli import main
from prolip.data import DataError, StoreConfig
from prolip.datasets.data_set import open_classes
from prolip.errors import UserError
from prolip.evaluation.calibrate import calibrate, report_lines
from prolip.evaluation.classification import embed_labelled
from prolip.evaluation.config import CalibrateOptions
from prolip.evaluation.decisions import reliability_chart
from prolip.evaluation.results import RowId
from prolip.evaluation.zero_shot import calibration_charts
from prolip.metrics.reliability import measure_pairs, measure_reliability

OPTIONS = CalibrateOptions(checkpoint="", data="", out=Path("unused"), num_resamples=3)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A model, calibrated on its labelled images."""
    root = tmp_path_factory.mktemp("calibrated")
    write_calibrated_world(root)
    assert command(root) == 0
    return root


def command(root, *words):
    given = f"--checkpoint {root}/run --data {root}/mine --device cpu".split()
    return main(latest(["calibrate", *given, "--num_resamples", "3", *words]))


@pytest.fixture(scope="module")
def model(lab):
    return prolip.load(lab / "run", device="cpu")


@pytest.fixture(scope="module")
def calibrated(lab, model):
    return calibrate(model, open_classes(str(lab / "mine"), StoreConfig(), ()), OPTIONS)


def test_calibrate_reports_before_and_after(calibrated):
    """Before: the model's own. After: labels with prior and temperature, single pairs with factor and bias."""
    chosen = {"prior": [0.7, 0.2, 0.1], "temperature": 1.7, "pairs": PairScale(0.3, -0.6)}
    found = calibrated._replace(calibration=dataclasses.replace(calibrated.calibration, **chosen))
    evidence, truth, draws = found.evidence.rows(found.held), found.truth[found.held], {"num_resamples": 3}
    known = (evidence.logits + torch.tensor([0.7, 0.2, 0.1]).log()) / 1.7
    pairs, match = evidence.pair_logits.double(), F.one_hot(truth, 3).bool()
    expected = [measure_reliability(some, truth, **draws) for some in (evidence.logits, known)]
    expected += [measure_pairs(some, match, **draws) for some in (pairs, 0.3 * pairs - 0.6)]
    lines = report_lines(found, OPTIONS)
    for name, *sides in zip(("calibration error", "Brier score", "negative log-likelihood"), *expected, strict=True):
        shown = " ".join(line for line in lines if line.startswith(name))
        found_values = [list(map(float, some)) for some in re.findall(r"(\S+) \((\S+) to (\S+)\)", shown)]
        np.testing.assert_allclose(found_values, sides, rtol=6e-3)
    assert not any("warning" in line for line in lines)
    chosen["pairs"] = PairScale(-0.3, -0.6)
    reversed_pairs = found._replace(calibration=dataclasses.replace(calibrated.calibration, **chosen))
    assert any("warning" in line for line in report_lines(reversed_pairs, OPTIONS))
    alone = found._replace(evidence=found.evidence._replace(pair_logits=None))
    assert len(report_lines(alone, OPTIONS)) == len(lines) - 6, "nothing about single pairs without a bias"


def test_zero_shot_shows_probabilities_before_and_after(lab, model, calibrated):
    """Classes may be in another order."""
    chosen = dataclasses.replace(calibrated.calibration, prior=[0.7, 0.2, 0.1], temperature=1.7)
    images, truth = embed_labelled(model, open_classes(str(lab / "mine"), StoreConfig(), ()), 128)
    logits = calibrated.evidence.logits
    sides = {"before": logits, "after": (logits + torch.tensor([0.7, 0.2, 0.1]).log()) / 1.7}
    expected = reliability_chart({name: (some, some.argmax(1) == truth) for name, some in sides.items()})
    known = dataclasses.replace(model, calibration=chosen)
    (found,) = calibration_charts(known, LABELS[::-1], images, 2 - truth)
    assert found.svg == expected.svg
    assert calibration_charts(known, ["animals", "food", "tea"], images, truth) == []


def test_calibrate_passes_its_settings_on(lab, model):
    data = open_classes(str(lab / "mine"), StoreConfig(), ("a {c}", "{c}!"))
    settings = {"score": "csd", "prior": "even", "fit_share": 0.5, "seed": 3}
    found = calibrate(model, data, dataclasses.replace(OPTIONS, **settings))
    expected, held = fit_calibration(
        found.evidence,
        torch.arange(3).repeat_interleave(40),
        Subject(model.name, model.fingerprint(), data.source, list(LABELS), ["a {}", "{}!"]),
        **settings,
    )
    assert (found.calibration.subject, found.calibration.temperature) == (expected.subject, expected.temperature)
    assert (found.calibration.seed, found.calibration.prior, len(found.held)) == (3, None, 60)
    assert torch.equal(found.held, held)
    assert torch.equal(found.calibration.held.score, expected.held.score)
    raw = model.classify(lab / "mine", LABELS, templates=["a {}", "{}!"], progress=False).probabilities
    torch.testing.assert_close(found.evidence.logits.softmax(1), raw, rtol=1e-4, atol=1e-6)


def test_classify_decides_by_the_calibration(lab, tmp_path, calibrated):
    chosen = dataclasses.replace(calibrated.calibration, prior=[0.7, 0.2, 0.1], temperature=1.7)
    save_calibration(chosen, tmp_path / "chosen")
    model = prolip.load(lab / "run", device="cpu", calibration=tmp_path / "chosen")
    evidence = calibrated.evidence._replace(logits=calibrated.evidence.logits + torch.tensor([0.7, 0.2, 0.1]).log())
    probabilities = (evidence.logits.double() / 1.7).softmax(1)
    answers = [LABELS[place] for place in probabilities.argmax(1)]
    for guarantee, limit, per_label in ((0.8, 0.3, False), (0.9, 0.5, True), (0.999, 0.001, False)):
        found = model.classify(
            lab / "mine", LABELS, guarantee=guarantee, max_error=limit, per_label=per_label, progress=False
        )
        torch.testing.assert_close(found.probabilities.double(), probabilities, rtol=1e-3, atol=1e-6)
        sets = chosen.label_sets(evidence, guarantee, per_label=per_label)
        assert [{*some} for some in found.label_sets] == [{LABELS[i] for i in row.nonzero()} for row in sets]
        assert [some[0] for some in found.label_sets] == found.labels == answers
        sure = probabilities.amax(1) >= chosen.abstention(limit).threshold
        assert found.answers == [one if given else None for one, given in zip(answers, sure, strict=True)]
        torch.testing.assert_close(found.usual.double(), chosen.usual(evidence.means), rtol=0, atol=0.03)
    assert {*map(len, found.label_sets)} == {3}, "84 images cannot show that one answer in a thousand is wrong"
    others = model.classify(lab / "elsewhere", LABELS, guarantee=0.9, progress=False)
    assert float(others.usual.max()) < 0.05 < float(found.usual.median())


def measured(lab, data, *words):
    given = f"--checkpoint {lab}/run --device cpu --num_resamples 0 --out {data}/out".split()
    assert main(["eval", "calibration", *given, "--data", str(data / "mine"), *words]) == 0
    return values(json.loads((data / "out" / "results.json").read_text()))


def link(lab, folder, **counts):
    """Fill `folder` with one folder per label, of that many of a label's images."""
    for name, (label, count) in counts.items():
        (folder / "mine" / name).mkdir(parents=True)
        for image in sorted((lab / "mine" / label).iterdir())[:count]:
            (folder / "mine" / name / image.name).symlink_to(image)


def test_a_calibration_is_measured_on_new_images(lab, model, tmp_path, capsys):
    found = measured(lab, lab, "--max_error", "0.5")
    assert "warning" not in capsys.readouterr().out
    for by in ("", "per_label"):
        sets = model.classify(lab / "mine", LABELS, guarantee=0.9, per_label=by != "", progress=False).label_sets
        inside = [LABELS[place // 40] in some for place, some in enumerate(sets)]
        id = RowId("set_coverage", by=by, at=0.9)
        assert found[id] == pytest.approx(np.mean(inside))
        for place, label in enumerate(LABELS):
            assert found[dataclasses.replace(id, of=label)] == pytest.approx(np.mean(inside[40 * place :][:40]))
    answers = model.classify(lab / "mine", LABELS, max_error=0.5, progress=False).answers
    right = [answer == LABELS[place // 40] for place, answer in enumerate(answers) if answer is not None]
    assert 0 < len(right) < 120, "the test would see nothing"
    assert found[RowId("dont_know", at=0.5)] == pytest.approx(1 - len(right) / 120)
    assert found[RowId("right_answers", at=0.5)] == pytest.approx(np.mean(right))
    # Other shares of the labels, of which one is missing; then also other images than the label's.
    link(lab, tmp_path / "shifted", animals=("animals", 40), travel=("travel", 5))
    measured(lab, tmp_path / "shifted", "--guarantee", "0.8")
    assert "animals" in capsys.readouterr().out.partition("warning")[2]
    link(lab, tmp_path / "wrong", animals=("travel", 40), food=("animals", 40), travel=("food", 40))
    measured(lab, tmp_path / "wrong", "--guarantee", "0.6")
    figures = json.loads((tmp_path / "wrong" / "out" / "results.json").read_text())["figures"]
    (row,) = (row for row in figures if RowId(**row["id"]) == RowId("set_coverage", data="mine", at=0.6))
    assert [*row["verdict"].values()] == ["below"]
    assert "warning" in capsys.readouterr().out
    link(lab, tmp_path / "other", animals=("animals", 5), unknown=("food", 5))
    for data, words in ((tmp_path / "other", ()), (lab, ("--guarantee", "90"))):
        with pytest.raises(AssertionError):
            measured(lab, data, *words)
        assert re.search("labels|guarantee", capsys.readouterr().err)


def test_a_calibration_is_refused_for_other_labels_templates_or_models(lab, model, caplog):
    images = lab / "mine" / "food" / "000.png"
    refused = [
        ("labels", ["animals", "food"], {"guarantee": 0.9}),
        ("templates", list(LABELS), {"guarantee": 0.9, "templates": ["a {}"]}),
        ("guarantee", list(LABELS), {"guarantee": 95}),
    ]
    for field, labels, options in refused:
        with refusal_of(field):
            model.classify(images, labels, **options)
    spelled = ["animals", "food-", "_travel"]
    sets = [model.classify(images, labels, guarantee=0.99).label_sets for labels in (LABELS, spelled)]
    assert sets[1] == [[spelled[LABELS.index(label)] for label in some] for some in sets[0] or ()], "in the given words"
    for given in ({"prompt_weights": torch.ones(3, 1)}, {"prior": [1, 1, 1]}):
        with pytest.raises(UserError, match=next(iter(given))):
            model.classify(images, LABELS, guarantee=0.9, **given)
    other = prolip.load(lab / "run", device="cpu", precision="bf16")
    assert other.calibration is None
    assert "calibration not used: " in caplog.text
    with pytest.raises(UserError, match="prolip calibrate"):
        other.classify(images, LABELS, max_error=0.1)
    with pytest.raises(UserError, match=r"calibration\.safetensors"):
        prolip.load(lab / "run", device="cpu", precision="bf16", calibration=lab / "run" / "calibration.safetensors")
    for path in (lab / "absent", lab, lab / "tokenizer.json"):
        with refusal_of(str(path)):
            load_calibration(path)


def test_unusable_data_and_settings_are_refused(tmp_path, lab, model):
    assert command(lab, "--out", str(tmp_path)) == 2, "a folder"
    (tmp_path / "names.txt").write_text("food\ntravel\nfood\n")
    assert command(lab, "--classnames", str(tmp_path / "names.txt"), "--out", str(tmp_path / "unused")) == 2
    for name in ("food", "few"):  # one label, and one image of each label
        (tmp_path / name).mkdir()
    (tmp_path / "food" / "food").symlink_to(lab / "mine" / "food")
    for label in LABELS:
        (tmp_path / "few" / label).mkdir()
        (tmp_path / "few" / label / "a.png").symlink_to(lab / "mine" / label / "000.png")
    for name in ("food", "few"):
        with refusal_of("data"):
            calibrate(model, open_classes(str(tmp_path / name), StoreConfig(), ()), OPTIONS)
    (tmp_path / "few" / "food" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=f"{tmp_path}/few/food/b.png: cannot be read"):
        calibrate(model, open_classes(str(tmp_path / "few"), StoreConfig(), ()), OPTIONS)
