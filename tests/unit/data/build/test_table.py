"""Shards of a table of images and captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import draw

from prolip.data.build.config import CsvConfig
from prolip.data.build.table import build_csv
from prolip.errors import UserError

Read = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    for name in "ab":
        draw(tmp_path / "img" / f"{name}.png")

    def write(text: str, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        return path

    return write


def test_rows_of_a_table_become_samples(tmp_path: Path, table: Callable[..., Path], read_back: Read) -> None:
    source = table('caption,image,year\n"a cat, asleep",img/a.png,1999\n\nein Hündchen,img/b.png,2001\n')
    build_csv(CsvConfig(table=source), tmp_path / "out")
    samples = {one["json"]["image"]: one for one in read_back(tmp_path / "out")}
    assert samples["img/a.png"]["txt"] == b"a cat, asleep"
    assert samples["img/b.png"]["txt"].decode() == "ein Hündchen"
    assert samples["img/b.png"]["json"] == {"image": "img/b.png", "year": "2001"}
    assert samples["img/a.png"]["png"] == (tmp_path / "img" / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,text\nimg/a.png,a\n", "caption_column = 'caption': .*has no such column; it has image, text"),
        ("file,caption\nimg/a.png,a\n", "image_column = 'image': .*has no such column; it has file, caption"),
        ("image;caption\nimg/a.png;a\n", "it has image;caption: name one with --image_column, or set --delimiter"),
        ("", "table: .* has no header"),
        ("image,caption,x,x\nimg/a.png,a,1,2\n", "has two columns with the same name: image, caption, x, x"),
        ("image,caption\nimg/a.png,a\nimg/b.png,b,c\n", r"table\.csv line 3: has 3 columns, the first line has 2"),
        ('image,caption\nimg/a.png,"a\n', r"table\.csv line 2: unexpected end of data"),
        ('"image" ,caption\nimg/a.png,a\n', r"table\.csv line 1: ',' expected after"),
        ("image,caption\n", "has no row below the header"),
        ("image,caption\nimg/a.png,a\nimg/c.png,c\n", r"1 of 2 .*table\.csv line 3: img/c\.png \(.*no such file"),
        ("image,caption\n,a\n", r"table\.csv line 2 \(column 'image' is empty\)"),
        ("image,caption\nimg/a.png, \n", r"table\.csv line 2 \(column 'caption' is empty\)"),
    ],
)
def test_errors_of_a_table_name_the_fault(tmp_path: Path, table: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_csv(CsvConfig(table=table(text)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_and_undecodable_tables_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"table: .*none\.csv is not a file"):
        build_csv(CsvConfig(table=tmp_path / "none.csv"), tmp_path / "out")
    (tmp_path / "latin.csv").write_bytes(b"image,caption\na.png,caf\xe9\n")
    with pytest.raises(ValueError, match=r"table: .*latin\.csv is not in UTF-8: save it as \.csv or \.tsv"):
        build_csv(CsvConfig(table=tmp_path / "latin.csv"), tmp_path / "out")
    (tmp_path / "rows.json").write_text('[{"image":"a.png","caption":"a cat"}]')
    with pytest.raises(UserError, match=r"table: .*rows\.json line 1: .*: it must be a \.csv or \.tsv file"):
        build_csv(CsvConfig(table=tmp_path / "rows.json"), tmp_path / "out")
    with pytest.raises(ValueError, match="delimiter = '::': must be one character"):
        CsvConfig(table=tmp_path / "none.csv", delimiter="::")
    with pytest.raises(ValueError, match="must differ"):
        CsvConfig(table=tmp_path / "none.csv", image_column="x", caption_column="x")


def test_all_captions_of_an_image_are_in_one_split(tmp_path: Path, table: Callable[..., Path], read_back: Read) -> None:
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
