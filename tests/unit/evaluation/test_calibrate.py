"""`prolip calibrate`, and label sets and "don't know" of a calibrated model."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from tests.support.class_folders import LABELS, write_calibrated_world
from tests.support.flags import latest

import prolip
from prolip.calibration import load_calibration
from prolip.calibration.fitting import PairScale
from prolip.cli import main
from prolip.data import DataError, StoreConfig
from prolip.errors import UserError
from prolip.evaluation.calibrate import Calibrated, calibrate, report_lines
from prolip.evaluation.config import CalibrateOptions
from prolip.evaluation.datasets import open_classes
from prolip.inference.model import Model
from prolip.metrics.statistics import equal_mass_error, value_of

OPTIONS = CalibrateOptions(checkpoint="", data="", out=Path("unused"), num_resamples=3)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, calibrated on its labelled images."""
    root = tmp_path_factory.mktemp("calibrated")
    write_calibrated_world(root)
    assert command(root) == 0
    return root


def command(root: Path, *words: str) -> int:
    given = ["--checkpoint", str(root / "run"), "--data", str(root / "mine"), "--device", "cpu"]
    return main(latest(["calibrate", *given, "--num_resamples", "3", *words]))


@pytest.fixture(scope="module")
def model(lab: Path) -> Model:
    return prolip.load(lab / "run", device="cpu")


@pytest.fixture(scope="module")
def calibrated(lab: Path, model: Model) -> Calibrated:
    return calibrate(model, open_classes(str(lab / "mine"), lab, StoreConfig(), ()), OPTIONS)


def test_calibrate_reports_before_and_after(calibrated: Calibrated) -> None:
    """Before: the model's own. After: labels with prior and temperature, single pairs with factor and bias."""
    chosen = {"prior": [0.7, 0.2, 0.1], "temperature": 1.7, "pairs": PairScale(0.3, -0.6)}
    found = calibrated._replace(calibration=dataclasses.replace(calibrated.calibration, **chosen))
    logits, truth = found.evidence.logits[found.held].double().numpy(), found.truth[found.held].numpy()
    assert found.evidence.pair_logits is not None
    pairs = found.evidence.pair_logits[found.held].double().numpy()
    match = np.eye(3)[truth]
    expected = []
    for weights in (np.exp(logits), np.exp((logits + np.log([0.7, 0.2, 0.1])) / 1.7)):
        shares = weights / weights.sum(axis=1, keepdims=True)
        error = value_of(
            equal_mass_error, torch.tensor(shares.max(axis=1)), torch.tensor(shares.argmax(axis=1) == truth)
        )
        brier = np.square(shares - match).sum(axis=1).mean()
        expected.append([error, brier, log_loss(truth, shares, labels=range(3))])
    for some in (pairs, 0.3 * pairs - 0.6):
        shares, right = (1 / (1 + np.exp(-some))).flatten(), match.flatten()
        error = value_of(equal_mass_error, torch.tensor(shares), torch.tensor(right))
        expected.append([error, brier_score_loss(right, shares), log_loss(right, shares)])
    lines = report_lines(found, OPTIONS)
    for place, name in enumerate(("calibration error", "Brier score", "negative log-likelihood")):
        shown = " ".join(line for line in lines if line.startswith(name))
        values = [float(value) for value in re.findall(r"(\S+) \(\S+ to \S+\)", shown)]
        assert values == pytest.approx([column[place] for column in expected], rel=6e-3), name
    assert not any("warning" in line for line in lines)
    chosen["pairs"] = PairScale(-0.3, -0.6)
    reversed_pairs = found._replace(calibration=dataclasses.replace(calibrated.calibration, **chosen))
    assert any("warning" in line for line in report_lines(reversed_pairs, OPTIONS))
    alone = found._replace(evidence=found.evidence._replace(pair_logits=None))
    assert len(report_lines(alone, OPTIONS)) == len(lines) - 6, "nothing about single pairs without a bias"


def test_sets_contain_the_labels_of_the_calibration_itself(lab: Path, model: Model, calibrated: Calibrated) -> None:
    """Of the n images that gave the threshold, the sets contain the labels of ceil((n + 1) * guarantee) at least."""
    truth, held = calibrated.truth, calibrated.held
    found = model.classify(lab / "mine", LABELS, guarantee=0.9, progress=False)
    assert found.label_sets is not None
    assert found.answers is None
    inside = torch.tensor([LABELS[place] in some for place, some in zip(truth, found.label_sets, strict=True)])
    assert int(inside[held].sum()) >= 77  # ceil(85 * .9)
    assert [some[0] for some in found.label_sets] == found.labels
    most = model.classify(lab / "mine", LABELS, guarantee=0.999, max_error=0.001, progress=False)
    assert most.label_sets is not None
    assert set(map(len, most.label_sets)) == {3}
    assert most.answers == [None] * 120, "84 images cannot show that one answer in a thousand is wrong"
    per_label = model.classify(lab / "mine", LABELS, guarantee=0.8, per_label=True, progress=False).label_sets
    assert per_label is not None
    for place, label in enumerate(LABELS):
        own = [item for item in held.tolist() if truth[item] == place]
        assert sum(label in per_label[item] for item in own) >= 0.8 * (len(own) + 1) - 1e-9


def test_decisions_use_the_frequencies_of_the_calibration(lab: Path, tmp_path: Path) -> None:
    """30 images of the first label, 6 and 4 of the others: the prior favours the first, and `even` does not."""
    for label, count in zip(LABELS, (30, 6, 4), strict=True):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for image in sorted((lab / "mine" / label).iterdir())[:count]:
            (tmp_path / "mine" / label / image.name).symlink_to(image)
    for prior in ("labelled", "even"):
        words = ["--data", str(tmp_path / "mine"), "--prior", prior, "--out", str(tmp_path / prior)]
        assert command(lab, *words) == 0
    even, found = (load_calibration(tmp_path / prior) for prior in ("even", "labelled"))
    assert even.prior is None
    assert found.prior is not None
    assert found.prior[0] > 0.5 > found.prior[1] + found.prior[2]
    model = prolip.load(lab / "run", device="cpu", calibration=tmp_path / "labelled")
    decided = model.classify(lab / "mine", LABELS, guarantee=0.9, progress=False).probabilities.double()
    raw = model.classify(lab / "mine", LABELS, templates=["a photo of a {}."], progress=False).probabilities.double()
    expected = ((raw.log() + torch.tensor(found.prior).log()) / found.temperature).softmax(dim=1)
    torch.testing.assert_close(decided, expected, rtol=1e-3, atol=1e-6)
    assert (decided - (raw.log() / found.temperature).softmax(dim=1)).abs().max() > 0.01


def measured(lab: Path, data: Path, *words: str) -> dict[str, float]:
    given = ["--checkpoint", str(lab / "run"), "--device", "cpu", "--num_resamples", "0", "--out", str(data / "out")]
    assert main(["eval", "calibration", *given, "--data", str(data / "mine"), *words]) == 0
    figures = json.loads((data / "out" / "results.json").read_text())["figures"]
    return {row["metric"]: next(iter(row["value"].values())) for row in figures}


def link(lab: Path, folder: Path, **counts: tuple[str, int]) -> None:
    """Fill `folder` with one folder per label, of that many of a label's images."""
    for name, (label, count) in counts.items():
        (folder / "mine" / name).mkdir(parents=True)
        for image in sorted((lab / "mine" / label).iterdir())[:count]:
            (folder / "mine" / name / image.name).symlink_to(image)


def test_a_calibration_is_measured_on_new_images(
    lab: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(lab, lab, "--max_error", "0.5")
    assert "warning" not in capsys.readouterr().out
    for title, per_label in (("label sets at 90%", False), ("label sets at 90% per label", True)):
        sets = model.classify(lab / "mine", LABELS, guarantee=0.9, per_label=per_label, progress=False).label_sets
        assert sets is not None
        inside = [LABELS[place // 40] in some for place, some in enumerate(sets)]
        assert found[f"{title}: contain the label"] == pytest.approx(np.mean(inside))
        for place, label in enumerate(LABELS):
            own = inside[40 * place : 40 * place + 40]
            assert found[f"{title}: contain the label, for {label}"] == pytest.approx(np.mean(own))
    answers = model.classify(lab / "mine", LABELS, max_error=0.5, progress=False).answers
    assert answers is not None
    right = [answer == LABELS[place // 40] for place, answer in enumerate(answers) if answer is not None]
    assert 0 < len(right) < 120, "the test would see nothing"
    assert found["at most 50% wrong: don't know"] == pytest.approx(1 - len(right) / 120)
    assert found["at most 50% wrong: right among the answered"] == pytest.approx(np.mean(right))
    # Other shares of the labels, of which one is missing; then also other images than the label's.
    link(lab, tmp_path / "shifted", animals=("animals", 40), travel=("travel", 5))
    measured(lab, tmp_path / "shifted", "--guarantee", "0.8")
    assert "animals is more frequent by 5" in capsys.readouterr().out
    link(lab, tmp_path / "wrong", animals=("travel", 40), food=("animals", 40), travel=("food", 40))
    measured(lab, tmp_path / "wrong", "--guarantee", "0.6")
    said = capsys.readouterr().out
    assert "label sets at 60%: contain the label: " in said
    assert "not as frequent" not in said
    link(lab, tmp_path / "other", animals=("animals", 5), unknown=("food", 5))
    for data, words in ((tmp_path / "other", ()), (lab, ("--guarantee", "90"))):
        with pytest.raises(AssertionError):
            measured(lab, data, *words)
        assert re.search("labels|guarantee", capsys.readouterr().err)


def test_out_of_distribution_images_are_unusual(lab: Path, model: Model) -> None:
    mine, others = (
        model.classify(lab / name, LABELS, guarantee=0.9, progress=False).usual for name in ("mine", "elsewhere")
    )
    assert mine is not None
    assert others is not None
    assert float(others.max()) < 0.05 < float(mine.median())
    assert float(mine.min()) >= 1 / 85


def test_a_saved_calibration_loads_equal(model: Model, calibrated: Calibrated) -> None:
    found, expected = model.calibration, calibrated.calibration
    assert found is not None
    for name in ("subject", "score", "seed", "prior", "temperature", "pairs", "labels"):
        assert getattr(found, name) == getattr(expected, name)
    for name in ("held", "fitted", "known"):
        for one, other in zip(getattr(found, name), getattr(expected, name), strict=True):
            torch.testing.assert_close(one, other)


def test_a_calibration_is_refused_for_other_labels_templates_or_models(
    lab: Path, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    images = lab / "mine" / "food" / "000.png"
    refused: list[tuple[str, list[str], dict[str, object]]] = [
        ("labels", ["animals", "food"], {"guarantee": 0.9}),
        ("labels", ["food", "animals", "travel"], {"guarantee": 0.9}),
        ("templates", list(LABELS), {"guarantee": 0.9, "templates": ["a {}"]}),
        ("guarantee", list(LABELS), {"guarantee": 95}),
    ]
    for field, labels, options in refused:
        with pytest.raises(UserError) as error:
            model.classify(images, labels, **options)  # type: ignore[arg-type]
        assert error.value.field == field
    spelled = ["animals", "food-", "_travel"]
    sets = [model.classify(images, labels, guarantee=0.99).label_sets for labels in (LABELS, spelled)]
    assert sets[1] == [[spelled[LABELS.index(label)] for label in some] for some in sets[0] or ()], "in the given words"
    for given in ({"prompt_weights": torch.ones(3, 1)}, {"prior": [1, 1, 1]}):
        with pytest.raises(UserError, match=next(iter(given))):
            model.classify(images, LABELS, guarantee=0.9, **given)  # type: ignore[arg-type]
    other = prolip.load(lab / "run", device="cpu", precision="bf16")
    assert other.calibration is None
    assert "calibration not used: " in caplog.text
    with pytest.raises(UserError, match="prolip calibrate"):
        other.classify(images, LABELS, max_error=0.1)
    with pytest.raises(UserError, match=r"calibration\.safetensors"):
        prolip.load(lab / "run", device="cpu", precision="bf16", calibration=lab / "run" / "calibration.safetensors")
    for path in (lab / "absent", lab, lab / "tokenizer.json"):
        with pytest.raises(UserError) as error:
            load_calibration(path)
        assert error.value.field == str(path)


def test_unusable_data_and_settings_are_refused(tmp_path: Path, lab: Path, model: Model) -> None:
    for field, setting in (("fit_share", 1), ("num_resamples", 0), ("seed", 2**64)):
        with pytest.raises(UserError) as error:
            dataclasses.replace(OPTIONS, **{field: setting})
        assert error.value.field == field
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
        with pytest.raises(UserError) as error:
            calibrate(model, open_classes(str(tmp_path / name), tmp_path, StoreConfig(), ()), OPTIONS)
        assert error.value.field == "data"
    (tmp_path / "few" / "food" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=f"the first: {tmp_path}/few/food/b.png: cannot decode"):
        calibrate(model, open_classes(str(tmp_path / "few"), tmp_path, StoreConfig(), ()), OPTIONS)
