"""`prolip classify --out`: a table with a row for each image of shards and folders."""

from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tests.support.class_folders import LABELS, write_calibrated_world

import prolip
from prolip.build.config import FolderConfig
from prolip.build.folder import build_folder
from prolip.cli import main
from prolip.embeddings.config import EmbedOptions


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A calibrated model, its labelled images as files and as shards, and a folder with a broken image."""
    root = tmp_path_factory.mktemp("classified")
    write_calibrated_world(root)
    given = f"--checkpoint {root}/run --data {root}/mine --device cpu".split()
    assert main(["calibrate", *given, "--num_resamples", "1"]) == 0
    build_folder(FolderConfig(images=root / "mine"), root / "built")
    (root / "elsewhere" / "broken.png").write_bytes(b"no image")
    return root


def command(lab, *words):
    return main([*f"classify --checkpoint {lab}/run --device cpu".split(), *words])


def test_the_table_has_the_answers_of_the_model_for_each_image(lab, monkeypatch, capsys):
    monkeypatch.chdir(lab)
    monkeypatch.setattr(EmbedOptions, "rows_per_part", 50)
    asked = {"guarantee": 0.9, "max_error": 0.5}
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    model = prolip.load(lab / "run", device="cpu")
    for images, sources in (("mine", ["mine"]), ("built/*.tar", ["built/*.tar", "elsewhere"])):
        assert command(lab, *sources, *words, "--out", "made.parquet") == 0
        table = pq.read_table("made.parquet").to_pydict()
        expected = model.classify(images, LABELS, progress=False, **asked)
        assert expected.usual is not None
        assert table["label"][:120] == expected.labels
        assert table["label_set"][:120] == ["; ".join(some) for some in expected.label_sets]
        assert table["answer"][:120] == [answer or "don't know" for answer in expected.answers]
        for name, values, error in (
            ("probability", expected.probabilities.amax(1), 1e-5),
            ("uncertainty", expected.uncertainty, 1e-5),
            ("usual", expected.usual, 0.03),  # a rank among 84, and batches of other sizes round differently
        ):
            assert table[name][:120] == pytest.approx(values.tolist(), rel=1e-4, abs=error), name
        assert sorted(table["image"][:120]) == sorted(f"{label}/{n:03}.png" for label in LABELS for n in range(40))
    assert table["image"][120:] == [f"{number}.png" for number in range(6)]
    assert set(table["source"]) == {*map(str, Path("built").glob("*.tar")), "elsewhere"}
    told = capsys.readouterr()
    assert "classified: 126 images; unreadable: 1\nelsewhere: broken.png: " in told.out
    assert "classified: 126image" in told.err
    assert command(lab, "mine", "--labels", *LABELS, "--templates", "my {}", "--out", "made.csv") == 0
    rows = pyarrow.csv.read_csv("made.csv").to_pydict()
    assert list(rows) == ["image", "label", "probability", "uncertainty", "source", "key"]
    assert rows["label"] == model.classify("mine", LABELS, templates=["my {}"], progress=False).labels


def test_names_in_a_csv_are_no_formulas_and_no_codes(lab, tmp_path):
    (tmp_path / "=cmd\x1b[31m.png").write_bytes((lab / "mine" / LABELS[0] / "000.png").read_bytes())
    for form, read, shown in (
        ("csv", pyarrow.csv.read_csv, "'=cmd\\u001b[31m.png"),
        ("parquet", pq.read_table, "=cmd\x1b[31m.png"),
    ):
        out = str(tmp_path / f"made.{form}")
        assert command(lab, str(tmp_path), "--labels", "a", "--out", out) == 0
        assert read(out)["key"].to_pylist() == read(out)["image"].to_pylist() == [shown]


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("mine a b", "out"),
        ("mine a b --out made.csv", "image"),
        ("mine --out made.csv", "labels"),
        ("broken --labels a --out made.csv", "no image"),
    ],
)
def test_errors_are_named_and_nothing_is_written(words, field, lab, monkeypatch, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"no image")
    (tmp_path / "mine").symlink_to(lab / "mine")
    monkeypatch.chdir(tmp_path)
    assert command(lab, *words.split()) == 2
    assert f"prolip classify: {field}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "mine"]
