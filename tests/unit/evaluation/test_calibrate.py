"""`prolip calibrate`, and label sets and "don't know" of a calibrated model."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from tests.support.class_folders import LABELS, write_calibrated_world
from torch import Tensor

import prolip
from prolip.cli import main
from prolip.data import DataError, StoreConfig
from prolip.decisions import (
    Calibration,
    PairScale,
    equal_mass_calibration_error,
    items_needed,
    label_shares,
    load_calibration,
    save_calibration,
)
from prolip.errors import UserError
from prolip.evaluation.calibrate import calibrate, report_lines, run_calibrate
from prolip.evaluation.config import CalibrateOptions
from prolip.evaluation.zero_shot import open_classes
from prolip.pretrained import open as opening
from prolip.pretrained.model import Model


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, calibrated on its labelled images."""
    root = tmp_path_factory.mktemp("calibrated")
    write_calibrated_world(root)
    assert command(root, "--num_resamples", "5") == 0
    return root


def command(root: Path, *words: str) -> int:
    given = ["--checkpoint", str(root / "run"), "--data", str(root / "mine"), "--device", "cpu"]
    return main(["calibrate", *given, *words])


@pytest.fixture(scope="module")
def model(lab: Path) -> Model:
    return prolip.load(lab / "run", device="cpu")


def evidence_of(lab: Path, model: Model) -> tuple[Tensor, Tensor]:
    """The labels of the labelled images, and the places that gave the guarantees."""
    options = CalibrateOptions(checkpoint="", data=str(lab / "mine"), out=lab / "unused")
    found = calibrate(model, open_classes(options.data, lab, StoreConfig(), ()), options)
    return found.truth, found.held


def test_calibrate_prints_what_it_measured(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(lab, "--num_resamples", "5", "--out", str(lab / "other.safetensors")) == 0
    shown = capsys.readouterr().out
    assert "120 labelled images, 3 labels. 36 images were used to fit the labels' shares and the temperature" in shown
    assert "The other 84 were measured" in shown
    for words in (
        "calibration error",
        "Brier score",
        "negative log-likelihood",
        "label sets at 95%",
        "at most 5% wrong answers (in 19 of 20 calibrations)",
        "no others",
    ):
        assert words in shown


def test_two_labels_cannot_have_one_name(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No call of `classify` could use such a calibration."""
    (tmp_path / "names.txt").write_text("food\ntravel\nfood\n")
    assert command(lab, "--classnames", str(tmp_path / "names.txt"), "--out", str(tmp_path / "unused")) == 2
    assert f"{lab / 'mine'} has the class name 'food' more than once" in capsys.readouterr().err


def test_both_columns_are_of_the_right_probabilities(lab: Path, model: Model) -> None:
    """Before: the model's own. After: labels with prior and temperature, single pairs with factor and bias."""
    options = CalibrateOptions(checkpoint="", data=str(lab / "mine"), out=lab / "unused", num_resamples=3)
    found = calibrate(model, open_classes(options.data, lab, StoreConfig(), ()), options)
    chosen = {"prior": [0.7, 0.2, 0.1], "temperature": 1.7, "pairs": PairScale(0.3, -0.6)}
    found = found._replace(calibration=dataclasses.replace(found.calibration, **chosen))
    logits, truth = found.evidence.logits[found.held].double().numpy(), found.truth[found.held].numpy()
    assert found.evidence.pair_logits is not None
    pairs = found.evidence.pair_logits[found.held].double().numpy()
    match = np.eye(3)[truth]
    expected = []
    for weights in (np.exp(logits), np.exp((logits + np.log([0.7, 0.2, 0.1])) / 1.7)):
        shares = weights / weights.sum(axis=1, keepdims=True)
        error = equal_mass_calibration_error(
            torch.tensor(shares.max(axis=1)), torch.tensor(shares.argmax(axis=1) == truth)
        )
        brier = np.square(shares - match).sum(axis=1).mean()
        expected.append([error, brier, log_loss(truth, shares, labels=range(3))])
    for some in (pairs, 0.3 * pairs - 0.6):
        shares, right = (1 / (1 + np.exp(-some))).flatten(), match.flatten()
        error = equal_mass_calibration_error(torch.tensor(shares), torch.tensor(right))
        expected.append([error, brier_score_loss(right, shares), log_loss(right, shares)])
    shown: dict[str, list[float]] = {}
    for line in report_lines(found, options):
        for name in ("calibration error", "Brier score", "negative log-likelihood"):
            if line.startswith(name):
                cells = re.findall(r"(\S+) \((\S+) to (\S+)\)", line)
                shown.setdefault(name, []).extend(float(value) for value, _, _ in cells)
    for place, name in enumerate(("calibration error", "Brier score", "negative log-likelihood")):
        assert shown[name] == pytest.approx([column[place] for column in expected], rel=6e-3), name
    # A model without a bias says nothing about single pairs.
    alone = found._replace(evidence=found.evidence._replace(pair_logits=None))
    assert not any("one label" in line for line in report_lines(alone, options))


def test_a_temperature_that_is_too_small_for_the_other_images_is_a_warning(lab: Path, model: Model) -> None:
    """Such is a temperature from images that the model tells apart almost without error."""
    options = CalibrateOptions(checkpoint="", data=str(lab / "mine"), out=lab / "unused", num_resamples=100)
    found = calibrate(model, open_classes(options.data, lab, StoreConfig(), ()), options)
    warned = {}
    for temperature in (found.calibration.temperature, 1e-3):
        calibration = dataclasses.replace(found.calibration, temperature=temperature)
        lines = report_lines(found._replace(calibration=calibration), options)
        warned[temperature] = [line for line in lines if line.startswith("warning:")]
    assert list(map(len, warned.values())) == [0, 1]
    (line,) = warned[1e-3]
    assert (
        "with the labels' shares and the temperature these labels are less probable (negative log-likelihood +" in line
    )
    assert line.endswith("give more, or a larger --fit_share")


def test_sets_contain_the_labels_of_the_calibration_itself(lab: Path, model: Model) -> None:
    """Of the n images that gave the threshold, the sets contain the labels of ceil((n + 1) * guarantee) at least."""
    assert model.calibration is not None
    truth, held = evidence_of(lab, model)
    found = model.classify(lab / "mine", LABELS, guarantee=0.9, progress=False)
    assert found.label_sets is not None
    assert found.answers is None
    inside = torch.tensor([LABELS[place] in some for place, some in zip(truth, found.label_sets, strict=True)])
    assert int(inside[held].sum()) >= 77  # ceil(85 * .9)
    for label, some in zip(found.labels, found.label_sets, strict=True):
        assert some[0] == label
    most = model.classify(lab / "mine", LABELS, guarantee=0.999, progress=False)
    assert items_needed(0.999) > len(held)
    assert most.label_sets == [[LABELS[place] for place in row] for row in most.probabilities.argsort(1, True).tolist()]
    raw = model.classify(lab / "mine", LABELS, templates=["a photo of a {}."], progress=False)
    assert model.calibration.prior is not None
    weighed = raw.probabilities.double().log() + torch.tensor(model.calibration.prior).log()
    expected = (weighed / model.calibration.temperature).softmax(dim=1)
    torch.testing.assert_close(most.probabilities.double(), expected, rtol=1e-3, atol=1e-6)
    assert raw.label_sets is None
    assert raw.usual is None


def test_label_frequencies_are_those_of_the_fitting_images(lab: Path, model: Model, tmp_path: Path) -> None:
    """30 images of the first label, 6 and 4 of the others: the prior favours the first, and `even` does not."""
    for label, count in zip(LABELS, (30, 6, 4), strict=True):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for image in sorted((lab / "mine" / label).iterdir())[:count]:
            (tmp_path / "mine" / label / image.name).symlink_to(image)
    calibrations = {}
    for prior in ("labelled", "even"):
        path = tmp_path / f"{prior}.safetensors"
        words = ["--checkpoint", str(lab / "run"), "--data", str(tmp_path / "mine"), "--device", "cpu"]
        assert main(["calibrate", *words, "--prior", prior, "--num_resamples", "2", "--out", str(path)]) == 0
        calibrations[prior] = load_calibration(path)
    assert calibrations["even"].prior is None
    shares = calibrations["labelled"].prior
    assert shares is not None
    assert shares[0] > 0.5 > shares[1] + shares[2]
    options = CalibrateOptions(checkpoint="", data=str(tmp_path / "mine"), out=tmp_path / "unused")
    found = calibrate(model, open_classes(options.data, tmp_path, StoreConfig(), ()), options)
    fitting = torch.ones(40, dtype=torch.bool).index_fill(0, found.held, False)
    assert shares == pytest.approx(label_shares(found.truth[fitting], 3))
    # So does the report: after a prior that leaves one label, the right answers are that label's images.
    one = found._replace(calibration=dataclasses.replace(found.calibration, prior=[1e-99, 1e-99, 1.0]))
    share = float((found.truth[found.held] == 2).double().mean())
    (line,) = [line for line in report_lines(one, options) if line.startswith("right answers")]
    assert line.split()[-1] == f"{share:.1%}"
    # What is decided takes the estimated shares.
    weighed = prolip.load(lab / "run", device="cpu", calibration=tmp_path / "labelled.safetensors")
    decided = weighed.classify(lab / "mine", LABELS, guarantee=0.9, progress=False).probabilities.double()
    raw = weighed.classify(lab / "mine", LABELS, templates=["a photo of a {}."], progress=False).probabilities
    expected = (raw.double().log() + torch.tensor(shares).log()) / calibrations["labelled"].temperature
    torch.testing.assert_close(decided, expected.softmax(dim=1), rtol=1e-3, atol=1e-6)
    even = raw.double().log() / calibrations["labelled"].temperature
    assert (decided - even.softmax(dim=1)).abs().max() > 0.01


def test_classify_abstains_below_the_calibrated_threshold(lab: Path, model: Model) -> None:
    assert model.calibration is not None
    threshold = model.calibration.abstention(0.6).threshold
    found = model.classify(lab / "mine", LABELS, max_error=0.6, progress=False)
    sure = found.probabilities.amax(dim=1) >= threshold - 1e-6
    assert found.answers == [label if known else None for label, known in zip(found.labels, sure.tolist(), strict=True)]
    never = model.classify(lab / "mine", LABELS, max_error=0.001, progress=False)
    assert never.answers == [None] * 120, "84 images cannot show that one answer in a thousand is wrong"


def test_out_of_distribution_images_get_a_low_usual_score(lab: Path, model: Model) -> None:
    mine = model.classify(lab / "mine", LABELS, guarantee=0.9, progress=False).usual
    elsewhere = model.classify(lab / "elsewhere", LABELS, guarantee=0.9, progress=False).usual
    assert mine is not None
    assert elsewhere is not None
    assert float(elsewhere.max()) < 0.05 < float(mine.median())


def test_per_label_calibration_has_a_threshold_per_label(lab: Path, model: Model) -> None:
    assert model.calibration is not None
    truth, held = evidence_of(lab, model)
    found = model.classify(lab / "mine", LABELS, guarantee=0.8, per_label=True, progress=False)
    assert found.label_sets is not None
    for place, label in enumerate(LABELS):
        own = [item for item in held.tolist() if truth[item] == place]
        inside = sum(label in found.label_sets[item] for item in own)
        assert inside >= 0.8 * (len(own) + 1) - 1e-9


def test_a_saved_calibration_loads_equal(lab: Path, model: Model) -> None:
    found = load_calibration(lab / "run" / "calibration.safetensors")
    assert model.calibration is not None
    assert found.subject == model.calibration.subject
    assert found.subject.labels == list(LABELS)
    assert found.pairs == model.calibration.pairs
    assert found.pairs is not None
    assert found.held.score.equal(model.calibration.held.score)


def test_a_calibration_whose_parts_do_not_fit_together_is_refused(model: Model, tmp_path: Path) -> None:
    found = model.calibration
    assert found is not None
    held, known = found.held, found.known
    parts: list[tuple[str, dict[str, Any]]] = [
        ("temperature", {"temperature": 0.0}),
        ("pairs", {"pairs": PairScale(math.nan, 0.0)}),
        ("prior", {"prior": [0.5, 0.5]}),
        ("held.label", {"held": held._replace(label=held.label + 1)}),
        ("held", {"held": held._replace(score=held.score[1:])}),
        ("held", {"held": held._replace(distance=held.distance * math.nan)}),
        ("fitted", {"fitted": found.fitted._replace(correct=found.fitted.correct[1:])}),
        ("fitted", {"fitted": found.fitted._replace(confidence=found.fitted.confidence * math.nan)}),
        ("known", {"known": known._replace(centres=known.centres[:, 1:])}),
        ("known", {"known": known._replace(precision=known.precision * math.nan)}),
    ]
    for name, part in parts:
        save_calibration(dataclasses.replace(found, **part), tmp_path / "part")
        with pytest.raises(UserError, match=f"part holds no calibration: {name} does not fit the rest"):
            load_calibration(tmp_path / "part")


def test_a_calibration_is_refused_for_other_labels_templates_or_models(
    lab: Path, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    images = lab / "mine" / "food" / "000.png"
    for labels, message in (
        (["animals", "food"], "'travel' is missing"),
        ([*LABELS, "nature"], "'nature' is not"),
        (["food", "animals", "travel"], "the order differs"),
    ):
        with pytest.raises(UserError, match=message):
            model.classify(images, labels, guarantee=0.9)
    with pytest.raises(UserError, match=r"templates is \['a \{\}'\]: the model was calibrated with"):
        model.classify(images, LABELS, templates=["a {}"], guarantee=0.9)
    with pytest.raises(UserError, match="prompt_weights cannot be given"):
        model.classify(images, LABELS, guarantee=0.9, prompt_weights=torch.ones(3, 1))
    with pytest.raises(UserError, match=r"prior cannot be given .*: the calibration has its own"):
        model.classify(lab / "mine", LABELS, prior=[1, 1, 1], guarantee=0.9)
    with pytest.raises(UserError, match=r"guarantee is 95: it must be between 0 and 1"):
        model.classify(images, LABELS, guarantee=95)
    calibration = lab / "run" / "calibration.safetensors"
    other = prolip.load(lab / "run", device="cpu", precision="bf16")
    assert other.calibration is None
    assert "calibration not used: " in caplog.text
    assert "calibration.safetensors: the calibration is for other weights or settings" in caplog.text
    with pytest.raises(UserError, match="need a calibrated model: make a calibration with prolip calibrate"):
        other.classify(images, LABELS, max_error=0.1)
    with pytest.raises(UserError, match=r"calibration\.safetensors: the calibration is for other weights"):
        prolip.load(lab / "run", device="cpu", precision="bf16", calibration=calibration)
    with pytest.raises(UserError) as absent:
        prolip.load(lab / "run", device="cpu", calibration=lab / "absent")
    assert str(absent.value) == f"{lab / 'absent'}: there is no such calibration", "the file is named once"
    with pytest.raises(UserError, match=f"{lab} cannot be read: "):
        load_calibration(lab)
    with pytest.raises(UserError, match="holds no calibration"):
        load_calibration(lab / "tokenizer.json")


def test_a_named_calibration_is_read_once(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> Calibration:
        read.append(path)
        return load_calibration(path)

    monkeypatch.setattr(opening, "load_calibration", counted)
    calibration = lab / "run" / "calibration.safetensors"
    assert prolip.load(lab / "run", device="cpu", calibration=calibration).calibration is not None
    assert read == [calibration]


def test_classify_prints_the_decision_for_one_image(
    lab: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["classify", str(lab / "mine" / "food" / "000.png"), "--checkpoint", str(lab / "run"), "--device", "cpu"]
    assert main([*words, "--guarantee", "0.999", "--max_error", "0.001"]) == 0
    shown = capsys.readouterr().out
    assert (
        "label set: animals, food, travel (at least 99.9% of such sets contain the right label, on average)\n" in shown
    )
    assert "answer, if at most 0.1% may be wrong: don't know" in shown
    assert f"This holds for images like those of {lab / 'mine'}, and for no others." in shown
    one = lab / "mine" / "animals" / "000.png"
    sets, plain = (model.classify(one, LABELS, guarantee=0.8, per_label=wanted).label_sets for wanted in (True, False))
    assert sets is not None
    assert sets != plain
    assert main(["classify", str(one), *words[2:], "--guarantee", "0.8", "--per_label"]) == 0
    shown = capsys.readouterr().out
    sure = "at least 80% of such sets contain the right label, whichever label it is, on average"
    assert f"label set: {', '.join(sets[0])} ({sure})\n" in shown
    assert "too few" not in shown
    assert main([*words, "--guarantee", "0.99", "--per_label"]) == 0
    assert "3 of 3 labels have too few calibration images for that: for them" in capsys.readouterr().out
    assert main([*words, "--per_label"]) == 2
    assert "per_label is given without guarantee" in capsys.readouterr().err
    assert main([*words, "--max_error", "0.6", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"answer", "usual", "labels"} <= answer.keys()
    assert "label_set" not in answer
    assert main([*words]) == 2
    assert "labels is empty" in capsys.readouterr().err


def test_too_few_images_or_no_output_file_are_refused(tmp_path: Path, lab: Path, model: Model) -> None:
    with pytest.raises(IsADirectoryError):  # before the data are opened
        run_calibrate(CalibrateOptions(checkpoint=str(lab / "run"), data="absent", out=tmp_path))
    one = tmp_path / "few" / "food"
    one.mkdir(parents=True)
    (one / "a.png").write_bytes((lab / "mine" / "food" / "000.png").read_bytes())
    options = CalibrateOptions(checkpoint="", data="", out=tmp_path / "unused")
    with pytest.raises(UserError, match="1 labelled items are too few"):
        calibrate(model, open_classes(str(tmp_path / "few"), tmp_path, StoreConfig(), ()), options)
    shutil.copytree(lab / "mine" / "food", tmp_path / "one" / "food")
    with pytest.raises(
        UserError, match="one: there is one label, which is always right: a calibration needs at least two"
    ):
        calibrate(model, open_classes(str(tmp_path / "one"), tmp_path, StoreConfig(), ()), options)
    assert main(["calibrate", "--checkpoint", "open_clip:x/y", "--data", str(lab / "mine")]) == 2
    with pytest.raises(UserError, match="fit_share is 1: it must be between 0 and 1"):
        CalibrateOptions(checkpoint="", data="", fit_share=1)
    with pytest.raises(UserError, match="num_resamples is 0: it must be at least 1"):
        CalibrateOptions(checkpoint="", data="", out=tmp_path / "unused", num_resamples=0)
    with pytest.raises(UserError, match=r"seed is 18446744073709551616: it must be from 0 to 2\^64 - 1"):
        CalibrateOptions(checkpoint="", data="", out=tmp_path / "unused", seed=2**64)


def test_a_damaged_image_is_named(tmp_path: Path, model: Model) -> None:
    (tmp_path / "mine" / "red fox").mkdir(parents=True)
    (tmp_path / "mine" / "red fox" / "b.1.jpg").write_bytes(b"no image")
    data = open_classes(str(tmp_path / "mine"), tmp_path, StoreConfig(), ())
    options = CalibrateOptions(checkpoint="", data="", out=tmp_path / "unused")
    with pytest.raises(DataError, match="sample 0000000/red fox/b_1_jpg: cannot decode its image"):
        calibrate(model, data, options)
