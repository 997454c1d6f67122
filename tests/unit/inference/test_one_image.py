"""`prolip classify` and `prolip compare`: one image beside labels or texts, as a table and as JSON."""

import json

import pytest

import prolip
from prolip.cli import main

LABELS = ["animals", "food", "a picture of travel"]


def command(lab, name, *words, model="run"):
    source = str(lab / "run") if model == "run" else f"open_clip:local-dir:{lab}/clip"
    return main([name, "--checkpoint", source, "--device", "cpu", *words])


def found(lab, capsys, name, *words, model="run"):
    assert command(lab, name, str(lab / "cat.png"), *words, "--json", model=model) == 0
    answer = json.loads(capsys.readouterr().out)
    return answer


def test_classify_prints_the_models_probabilities(lab, capsys):
    words = ("--templates", "a picture of {}", "an emoji: {}", "--prior", "5", "1", "15")
    answer = found(lab, capsys, "classify", *LABELS, *words)
    model = prolip.load(lab / "run", device="cpu")
    templates = ["a picture of {}", "an emoji: {}"]
    expected = model.classify(lab / "cat.png", LABELS, templates=templates, prior=[5, 1, 15])
    shares = [row["probability"] for row in answer["labels"]]
    assert shares == sorted(shares, reverse=True)
    for row in answer["labels"]:
        place = LABELS.index(row["label"])
        assert row["probability"] == pytest.approx(float(expected.probabilities[0, place]), rel=1e-4)
        assert row["match"] == pytest.approx(float(expected.match[0, place]), rel=1e-4)


def test_compare_prints_distance_and_inclusion_in_both_directions(lab, capsys):
    answer = found(lab, capsys, "compare", *LABELS)
    model = prolip.load(lab / "run", device="cpu")
    image, texts = model.encode_images(lab / "cat.png"), model.encode_texts(LABELS)
    distances = [row["csd"] for row in answer["texts"]]
    assert distances == sorted(distances)
    assert answer["uncertainty"] == pytest.approx(float(image.uncertainty[0]))
    for row in answer["texts"]:
        place = LABELS.index(row["text"])
        text = texts.rows(slice(place, place + 1))
        assert row["csd"] == pytest.approx(float(prolip.csd(image, text)), rel=1e-4)
        assert row["similarity"] == pytest.approx(float(image.mean @ text.mean.T), rel=1e-3)
        assert row["uncertainty"] == pytest.approx(float(text.uncertainty), rel=1e-4)
        assert row["image_in_text"] == pytest.approx(float(prolip.inclusion_score(image, text).sum()), rel=1e-3)
        assert row["text_in_image"] == pytest.approx(-row["image_in_text"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["classify", "absent.png", "a", "an"], "absent.png"),
        (["compare", "run", "a"], "run"),
        (["classify", "notes.txt", "a", "an"], "out"),
        (["classify", "cat.png", "a", "a"], "labels"),
        (["classify", "cat.png", "a", "--templates", "no label"], ""),
        (["classify", "cat.png", "a", "b", "--prior", "1"], "prior"),
        (["classify", "cat.png", "--guarantee", "0.9"], "guarantee"),
        (["classify", "cat.png"], "labels"),
        (["compare", "cat.png"], "texts"),
    ],
)
def test_errors_of_classify_and_compare_are_named(words, field, lab, capsys, monkeypatch):
    monkeypatch.chdir(lab)
    assert command(lab, *words) == 2
    assert capsys.readouterr().err.startswith(f"prolip {words[0]}: {field}")
