"""Every command's last line says what it wrote and what to do next, except in JSON and TOML output."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from tests.support.shards import encoded, write_tar

from prolip.cli import main
from prolip.closing import closing, command


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images in a class folder, a table, a shard and the log of a run."""
    monkeypatch.chdir(tmp_path)
    Path("photos/fox").mkdir(parents=True)
    Path("photos/fox/a.png").write_bytes(encoded((1, 2, 3)))
    Path("table.csv").write_text("image,caption\nphotos/fox/a.png,a fox\n")
    write_tar(Path("a.tar"), [("k.png", encoded((9, 9, 9)))])
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/metrics.jsonl").write_text('{"step": 1, "samples": 8, "time_s": 1.0, "loss": 2.0}\n')


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (
            "data build folder --images photos --out my\\ set",
            "wrote my set; next: prolip train finetune-clip-vit-b16 --shards 'my set/train-*.tar', or prolip embed "
            "--checkpoint MODEL --shards 'my set/train-*.tar' --out FOLDER",
        ),
        (
            "data build folder --images photos --captions none --out plain",
            "wrote plain; next: prolip embed --checkpoint MODEL --shards 'plain/train-*.tar' --out FOLDER",
        ),
        (
            "data build csv --table table.csv --out out",
            "wrote out; next: prolip train finetune-clip-vit-b16 --shards 'out/train-*.tar'",
        ),
        (
            "data index --shards a.tar --out a.index",
            "wrote a.index; next: prolip train RECIPE --shards a.tar --data.index a.index",
        ),
        (
            "data build folder --images photos --val_share 0.999 --out val",
            "wrote val; next: prolip embed --checkpoint MODEL --shards 'val/val-*.tar' --out FOLDER",
        ),
        ("runs", "next: prolip runs runs --plot runs.html draws the curves"),
        ("runs runs/one", "next: prolip runs runs/one --plot runs.html draws the curves"),
        ("runs --plot page.html", "wrote page.html; next: open page.html in a browser"),
    ],
)
def test_a_command_ends_with_its_output_and_the_next_command(
    words: str, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("\\", " ") for word in words.replace("\\ ", "\\").split(" ")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_checking_an_index_does_not_say_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "index", "--shards", "a.tar", "--out", "a.index"]
    assert main(words) == 0
    write_tar(Path("a.tar"), [("k.png", encoded((9, 9, 9))), ("l.png", encoded((9, 9, 9)))])
    capsys.readouterr()
    assert main([*words, "--check"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "next: prolip data index --shards a.tar --out a.index"


def test_the_closing_line_stays_out_of_json_and_toml_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["run"] == "one"
    assert told.err == "next: prolip runs runs --plot runs.html draws the curves\n"
    assert main(["recipes", "demo"]) == 0
    told = capsys.readouterr()
    assert tomllib.loads(told.out)["out"] == "runs/demo"
    assert told.err.startswith("next: prolip train demo --shards SHARD ...")


def test_the_closing_line_names_only_files_that_were_written() -> None:
    assert closing("rest") == closing("rest", [None]) == "next: rest"
    assert closing("rest", [Path("a"), None, "b"]) == "wrote a, b; next: rest"
    assert command("embed", "--out", Path("a b"), "FOLDER", "...") == "prolip embed --out 'a b' FOLDER ..."
