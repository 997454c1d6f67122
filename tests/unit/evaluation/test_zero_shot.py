"""`prolip eval zero_shot`: class folders, and the same images in the published layout."""

import base64
import io
import itertools
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.shards import encoded, write_tar
from tests.support.suite_results import values
from tests.support.untrained_run import write_run, write_run_with

import prolip
from prolip.cli import main
from prolip.datasets.data_set import open_dataset
from prolip.evaluation import classification, zero_shot
from prolip.evaluation.results import RowId

CLASSES = ["red_fox", "sea-lion", "travel"]
COUNTS = [3, 2, 4]
PROMPTS = ["a photo of {}", "{} again"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A run, images in class folders with equal file names, and the same images in the published layout."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    members = []
    for label, (name, count) in enumerate(zip(CLASSES, COUNTS, strict=True)):
        (folder / "animals" / name).mkdir(parents=True)
        for number in range(count):
            image = encoded((label * 110, number * 60, 9))
            (folder / "animals" / name / f"{number}.png").write_bytes(image)
            members += [(f"{len(members):04}.png", image), (f"{len(members):04}.cls", str(label).encode())]
    layout = folder / "wds_animals_test"
    (layout / "test").mkdir(parents=True)
    write_tar(layout / "test" / "0.tar", members)
    (layout / "classnames.txt").write_text("red fox\nsea lion\ntravel\n")
    (layout / "zeroshot_classification_templates.txt").write_text("\n".join(PROMPTS))
    return folder


def evaluate(lab, out, *words):
    given = f"eval zero_shot --checkpoint {lab}/run --out {out} --num_resamples 0".split()
    assert main([*given, *words]) == 0
    return values(json.loads((out / "results.json").read_text()))


def test_accuracy_on_class_folders_equals_the_models_answers(lab, tmp_path):
    folders = evaluate(lab, tmp_path / "folders", "--data", str(lab / "animals"), "--templates", *PROMPTS)
    model = prolip.load(lab / "run", device="cpu")
    words = ["red fox", "sea lion", "travel"]
    answers = model.classify(lab / "animals", words, templates=PROMPTS).labels
    right = [name for name, count in zip(words, COUNTS, strict=True) for _ in range(count)]
    hits = [answer == name for answer, name in zip(answers, right, strict=True)]
    assert 0 < sum(hits) < len(hits), "the test would see nothing"
    assert folders[RowId("accuracy")] == pytest.approx(sum(hits) / len(hits))
    for own, other in itertools.product(words, words):
        share = [answer == other for answer, name in zip(answers, right, strict=True) if name == own]
        id = RowId("recall", of=own) if own == other else RowId("confusion", of=own, other=other)
        assert folders.get(id, 0) == pytest.approx(sum(share) / len(share))
    # The published layout brings names and prompts of its own.
    assert evaluate(lab, tmp_path / "layout", "--data", str(lab / "wds_animals_test")) == pytest.approx(folders)
    # Names of the user's own, in the order of the folders.
    (tmp_path / "names.txt").write_text("travel\nsea lion\nred fox\n")
    data = ["--data", str(lab / "animals"), "--templates", *PROMPTS]
    renamed = evaluate(lab, tmp_path / "renamed", *data, "--classnames", str(tmp_path / "names.txt"))
    turned = {"red fox": "travel", "travel": "red fox"}
    hits = [turned.get(answer, answer) == name for answer, name in zip(answers, right, strict=True)]
    assert renamed[RowId("accuracy")] == pytest.approx(sum(hits) / len(hits))
    (tmp_path / "names.txt").write_text("fox\nfox\ntravel\n")
    twice = evaluate(lab, tmp_path / "twice", *data, "--classnames", str(tmp_path / "names.txt"))
    assert {RowId("recall", of=name) for name in ("fox #0", "fox #1", "travel")} <= twice.keys()


def test_accuracy_stands_beside_the_largest_class_and_an_untrained_model(lab, tmp_path):
    """The weights of the lab's run are untrained ones."""
    words = ["--data", str(lab / "animals"), "--templates", *PROMPTS]
    untrained = evaluate(lab, tmp_path / "untrained", *words)
    write_run_with(tmp_path / "run", lab / "tokenizer.json", context_length=8, seed=4)
    other = evaluate(tmp_path, tmp_path / "out", *words)
    assert other[RowId("accuracy")] != untrained[RowId("accuracy")], "the test would see nothing"
    accuracy = json.loads((tmp_path / "out" / "results.json").read_text())["figures"][0]
    assert accuracy["baselines"] == pytest.approx({"untrained": untrained[RowId("accuracy")], "largest class": 4 / 9})


def test_classes_that_are_mistaken_for_each_other_are_neighbours():
    labels = torch.arange(6).repeat_interleave(4)
    best = torch.where(torch.arange(24) % 4 == 0, (labels + 3) % 6, labels)
    best[-3:] = 6  # a class without images
    names = ["<a>", *"bcdefg"]
    drawn = ET.fromstring(zero_shot.confusion_chart(labels, best, names).svg)
    heads = [one.text for one in drawn.findall(".//thead//span")]
    assert heads.index("<a>") < 3
    assert {*map(frozenset, zip(heads[::2], heads[1::2], strict=True))} == {*map(frozenset, (["<a>", "d"], "be", "cf"))}
    rows = [[cell.text for cell in row.findall("td")] for row in drawn.findall(".//tbody/tr")]
    assert sorted(row[place] or "0" for place, row in enumerate(rows)) == ["0", *["75"] * 5]
    assert [row[place ^ 1] for place, row in enumerate(rows)] == ["25"] * 6


def test_the_page_shows_images_with_class_answer_and_name(lab, tmp_path):
    names, total = ["red fox", "sea lion", "travel"], sum(COUNTS)
    evaluate(lab, tmp_path, "--data", str(lab / "animals"), "--templates", *PROMPTS)
    (charts,) = json.loads((tmp_path / "results.json").read_text())["charts"].values()
    wrong, uncertain = (ET.fromstring(chart["svg"]) for chart in charts if "gallery" in chart["svg"])
    assert (len(wrong), len(uncertain)) == (total - 5, total)
    for tile in (*wrong, *uncertain):
        label = names.index(tile.find("b").text)
        said, name = (line.text for line in tile.findall("span"))
        answer = said.rpartition(",")[0]
        assert (answer == f"✓ {names[label]}") == (tile.find("span").get("class") == "yes") == ("✓" in said)
        number = int(name.removesuffix(".png"))
        shown = base64.b64decode(tile.find("img").get("src").partition("base64,")[2])
        colour = np.asarray(Image.open(io.BytesIO(shown))).mean((0, 1))
        np.testing.assert_allclose(colour, (label * 110, number * 60, 9), atol=4)


def test_images_are_shown_only_if_asked_and_named_without_doubt(lab, tmp_path):
    evaluate(lab, tmp_path, "--data", str(lab / "animals"), "--show", "0")
    assert "gallery" not in (tmp_path / "results.json").read_text()
    data = open_dataset(str(lab / "animals"))

    def shown(*keys):
        found = zero_shot.photographs(data, keys, {"all": range(len(keys))}, lambda place: ("<b>", ("<i>", True)))
        return [len(ET.fromstring(chart.svg)) for chart in found]

    assert shown("travel/0.png", "travel/1.png", "travel/absent.png") == [2]
    assert shown("travel/0.png", "travel/0.png", "travel/1.png") == [1]


def test_the_ten_lowest_classes_are_main_figures():
    labels = torch.arange(12).repeat_interleave(12)
    right = torch.arange(12).repeat(12) < (labels * 5) % 12
    rows = classification.class_rows(RowId("recall"), right, labels, [str(place) for place in range(12)])
    assert [row.value * 12 for row in rows] == pytest.approx(range(12))
    assert [row.main for row in rows] == [True] * 10 + [False] * 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), ()),
        (("a.png",), ()),
        (("x/a.png",), ("--classnames", "names.txt")),
        (("x/a.png",), ("--templates", "a photo")),
        ((), ("--data", "shards")),
    ],
)
def test_data_without_classes_or_images_is_an_error(lab, tmp_path, monkeypatch, files, words, capsys):
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    Path("names.txt").write_text("one\ntwo\n")
    for file in files:
        Path("set", file).parent.mkdir(exist_ok=True)
        Path("set", file).write_bytes(encoded((1, 2, 3)))
    if "shards" in words:  # they have classes as texts
        assert main(f"data build folder --images {lab}/animals --out shards".split()) == 0
    assert main([*f"eval zero_shot --checkpoint {lab}/run --data set".split(), *words]) == 2
    assert re.search("data|classnames|template", capsys.readouterr().err)
