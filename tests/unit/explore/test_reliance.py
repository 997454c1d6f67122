"""What the page says about relying on an answer: label sets, "don't know", and two kinds of doubt."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.class_folders import LABELS, write_calibrated_world

from prolip.data import StoreConfig
from prolip.evaluation.calibrate import calibrate
from prolip.evaluation.config import CalibrateOptions
from prolip.evaluation.datasets import open_classes
from prolip.explore.explorer import Explorer
from prolip.explore.items import Item
from prolip.explore.reliance import Doubt, Reliance
from prolip.explore.show_reliance import relied_on
from prolip.pretrained.classify import Decide
from prolip.pretrained.model import Model
from prolip.pretrained.open import load

DECIDE = Decide(guarantee=0.9, max_error=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with its calibration."""
    root = tmp_path_factory.mktemp("rely")
    write_calibrated_world(root)
    found = load(root / "run", device="cpu")
    options = CalibrateOptions(checkpoint="", data=str(root / "mine"), out=root / "unused")
    made = calibrate(found, open_classes(options.data, root, StoreConfig(), ()), options)
    return dataclasses.replace(found, calibration=made.calibration)


@pytest.fixture(scope="module")
def items(model: Model) -> list[Item]:
    folder = Path(model.name).parent / "mine"
    return [Item(label, (folder / label / "007.png").read_bytes(), (label,)) for label in LABELS]


@pytest.fixture(scope="module")
def explorer(model: Model, items: list[Item]) -> Explorer:
    return Explorer(model, items)


def test_the_page_gives_the_decisions_of_classify(explorer: Explorer, model: Model) -> None:
    calibration = model.calibration
    assert calibration is not None
    sizes = []
    for guarantee, max_error in ((0.8, 0.65), (0.9, 0.5), (0.99, 0.02)):
        decide = Decide(guarantee=guarantee, max_error=max_error)
        for item in explorer.items:
            found = explorer.rely(item.image, [*LABELS, " "], decide)
            expected = model.classify(item.image, LABELS, guarantee=guarantee, max_error=max_error, progress=False)
            assert expected.label_sets is not None
            assert expected.answers is not None
            assert expected.usual is not None
            assert found.within is not None
            kept = [label for label, inside in zip(found.labels, found.within, strict=True) if inside]
            assert kept == expected.label_sets[0]
            assert found.answer == expected.answers[0]
            assert found.threshold == calibration.abstention(max_error).threshold
            ranked = expected.probabilities[0].sort(descending=True).values
            torch.testing.assert_close(torch.tensor(found.probabilities), ranked)
            assert found.not_learned is not None
            assert found.not_learned.share is not None
            held = len(calibration.held.distance)
            assert 1 - float(expected.usual[0]) == pytest.approx(found.not_learned.share * held / (held + 1))
            sizes.append(len(kept))
    assert sizes[0] < sizes[-1] == len(LABELS)


def test_the_variance_is_ranked_among_the_pages_images(explorer: Explorer, model: Model) -> None:
    ranked = [item for item, _ in explorer.ranked_images()]
    shares = [explorer.rely(item.image, LABELS, DECIDE).left_open.share for item in ranked]
    assert shares == pytest.approx([0, 1 / 3, 2 / 3])
    alone = Explorer(model, []).rely(ranked[0].image, LABELS, DECIDE)
    assert alone.left_open.share is None
    assert alone.left_open.value == pytest.approx(explorer.ranked_images()[0][1], rel=1e-5)
    assert "unknown: start with --shards" in relied_on(alone)


def test_without_a_calibration_the_command_that_makes_one_is_named(model: Model, items: list[Item]) -> None:
    bare = dataclasses.replace(model, calibration=None)
    found = Explorer(bare, items).rely(items[0].image, LABELS, DECIDE)
    assert (found.within, found.answer, found.data, found.not_learned) == (None, None, None, None)
    expected = bare.classify(items[0].image, LABELS, progress=False).probabilities[0].sort(descending=True).values
    torch.testing.assert_close(torch.tensor(found.probabilities), expected)
    page = relied_on(found)
    assert f"There is no calibration: prolip calibrate --checkpoint {bare.name} --data FOLDER makes one" in page
    assert "needs a calibration" in page
    assert "label set" not in page
    hub = dataclasses.replace(bare, name="hf-hub:some/model")
    said = Explorer(hub, items).rely(items[0].image, LABELS, DECIDE).why_not
    assert said is not None
    assert "--out calibration.safetensors makes one" in said
    assert said.endswith("Then start this page with --calibration calibration.safetensors.")


def test_labels_other_than_the_calibrations_have_no_guarantee(explorer: Explorer) -> None:
    found = explorer.rely(explorer.items[0].image, ["a picture", "food"], DECIDE)
    assert found.within is None
    assert found.not_learned is not None, "the distance needs no labels"
    page = relied_on(found)
    assert "no guarantee for these labels" in page
    assert "for no others" not in page
    with pytest.raises(ValueError, match="write labels"):
        explorer.rely(explorer.items[0].image, [" "], DECIDE)


def reliance(**values: Any) -> Reliance:
    usual: dict[str, Any] = {
        "labels": ["cat", "<dog>", "cow"],
        "probabilities": [0.6, 0.3, 0.1],
        "guarantee": 0.9,
        "max_error": 0.1,
        "within": [True, True, False],
        "answer": "cat",
        "threshold": 0.5,
        "data": "my <images>",
        "why_not": None,
        "left_open": Doubt(3.25, 0.25, "some"),
        "not_learned": Doubt(12.5, 0.5, "others"),
    }
    return Reliance(**(usual | values))


def written(found: Reliance) -> str:
    page = relied_on(found).replace("\N{NO-BREAK SPACE}", " ")
    assert "<dog>" not in page
    assert "<images>" not in page
    return page


def test_label_set_answer_and_doubts_are_shown() -> None:
    page = written(reliance())
    assert "Answer: “cat”. At most 10 % of the answers given are wrong, in 19 of 20 calibrations." in page
    sure = "At least 90 % of such sets contain the right label, on average."
    assert f"Label set: “cat”, “&lt;dog&gt;”. {sure}" in page
    assert page.count("in the set") == 2
    assert re.findall(r"<b>(.*?)</b>", page) == [
        "60.0 %",
        "30.0 %",
        "10.0 %",
        "25 % are more certain",
        "50 % are nearer",
    ]
    assert "uncertainty 3.250, compared with some" in page
    assert "distance 12.50, compared with others" in page
    assert "images like those of my &lt;images&gt;, and for no others" in page
    assert "unlike" not in page.replace("is unlike what the model knows", "")
    assert f"Label set: “cat”. {sure}" in written(reliance(within=[True, False, False]))


def test_dont_know_says_which_confidence_would_be_needed() -> None:
    assert "is 60.0 %, and at most 10 % of the answers are wrong only from 71.5 % on" in written(
        reliance(answer=None, threshold=0.715)
    )
    assert "Don't know: the calibration cannot promise that at most 10 %" in written(
        reliance(answer=None, threshold=math.inf)
    ).replace("&#39;", "'")


def test_an_out_of_distribution_image_is_called_that() -> None:
    assert "This image is unlike" in written(reliance(not_learned=Doubt(99.0, 0.97, "others")))


def test_a_long_list_of_labels_is_cut_after_the_label_set() -> None:
    labels = [f"label {number}" for number in range(30)]
    some = {"labels": labels, "probabilities": [1 / 30] * 30}
    page = written(reliance(**some, within=[place < 2 for place in range(30)]))
    assert page.count("td class='name'>label") == 10
    assert "The table shows 10 of 30 labels." in page
    assert written(reliance(**some, within=[place < 12 for place in range(30)])).count("td class='name'>label") == 12
