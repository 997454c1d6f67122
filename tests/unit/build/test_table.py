"""Shards of a table of images and captions."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.images import draw
from tests.support.refusals import refusal_of

from prolip.build.config import CsvConfig
from prolip.build.table import build_csv

Read = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def table(tmp_path):
    for name in "ab":
        draw(tmp_path / "img" / f"{name}.png")

    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        return path

    return write


def test_rows_of_a_table_become_samples(tmp_path, table, read_back):
    source = table('caption,image,year\n"a cat, asleep",img/a.png,1999\n\nein Hündchen,img/b.png,2001\n')
    build_csv(CsvConfig(table=source), tmp_path / "out")
    samples = {one["json"]["image"]: one for one in read_back(tmp_path / "out")}
    assert samples["img/a.png"]["txt"] == b"a cat, asleep"
    assert samples["img/b.png"]["txt"].decode() == "ein Hündchen"
    assert samples["img/b.png"]["json"] == {"image": "img/b.png", "year": "2001", "captions": ["ein Hündchen"]}
    assert samples["img/a.png"]["png"] == (tmp_path / "img" / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("image,text\nimg/a.png,a\n", "caption_column"),
        ("image;caption\nimg/a.png;a\n", "image_column"),
        ("", "image_column"),
        ("image,caption,x,x\nimg/a.png,a,1,2\n", "table"),
        ("image,caption\nimg/a.png,a\nimg/b.png,b,c\n", "table"),
        ('image,caption\nimg/a.png,"a\n', "table"),
        ('[{"image":"a.png","caption":"a cat"}]', "table"),
        ("image,caption\n", "table"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, table, text, field):
    with refusal_of(field):
        build_csv(CsvConfig(table=table(text)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("row", ["img/c.png,c", ",a", "img/a.png, "])
def test_a_row_without_image_or_caption_is_left_out_and_named(tmp_path, table, row):
    source = table(f"image,caption\nimg/a.png,a\n{row}\n")
    summary = build_csv(CsvConfig(table=source, max_bad_fraction=0.5), tmp_path / "out")
    assert [bad.name.split(":")[0] for bad in summary.skipped] == ["table.csv line 3"]


def test_all_captions_of_an_image_are_in_one_split(tmp_path, table, read_back):
    for number in range(20):
        draw(tmp_path / "img" / f"{number}.png", value=number)
    rows = [f"img/{number}.png,caption {turn} of {number}" for turn in range(3) for number in range(20)]
    source = table("image,caption\n" + "\n".join(rows) + "\n")
    build_csv(CsvConfig(table=source, val_share=0.4), tmp_path / "out")
    val = {one["json"]["image"] for one in read_back(tmp_path / "out", "val-*.tar")}
    train = {one["json"]["image"] for one in read_back(tmp_path / "out", "train-*.tar")}
    assert val
    assert train
    assert not val & train
