"""`prolip search` by text and by image, in images and in captions, with a contact sheet."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.support.shards import encoded, read_tar, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.cli.search import _next
from prolip.embeddings.config import SearchOptions
from prolip.embeddings.row_contents import Contents, fetch, fetch_local
from prolip.embeddings.storage import Manifest


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two shards with the same keys and of a folder, and captions of lines, embedded."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    for shard in range(2):
        members = []
        for number in range(4):
            members += [(f"k{number}.png", encoded((shard * 200, number * 60, 9))), (f"k{number}.txt", b"an <emoji>")]
        write_tar(folder / f"shard{shard}.tar", members)
    (folder / "images").mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / "images" / "red.tif")
    (folder / "images" / "blue.png").write_bytes(encoded((0, 0, 255)))
    (folder / "lines.txt").write_text("a picture of food\nan emoji: travel\nnature\n")
    words = ["embed", "--checkpoint", str(folder / "run"), "--device", "cpu", "--what", "both", "--out"]
    data = ["--shards", str(folder / "shard{0..1}.tar"), "--images", str(folder / "images")]
    lines = ["--lines", str(folder / "lines.txt")]
    (folder / "images" / "red.txt").write_text("a picture")
    (folder / "images" / "blue.txt").write_text("an emoji")
    assert main([*words, str(folder / "out"), *data, *lines]) == 0
    return folder


def search(lab: Path, *words: str) -> int:
    return main(["search", "--embeddings", str(lab / "out"), "--device", "cpu", *words])


def found_by(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """What a search prints as JSON."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_image_finds_itself_in_its_shard(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "k2.png").write_bytes(dict(read_tar(lab / "shard1.tar"))["k2.png"])
    red = lab / "images" / "red.tif"
    words = ["--image", str(tmp_path / "k2.png"), str(red), "--k", "3", "--score", "mean"]
    found = found_by(["search", "--embeddings", str(lab / "out"), "--device", "cpu", *words], capsys)
    first = [entry["answers"][0] for entry in found]
    assert [(answer["key"], Path(answer["source"]).name) for answer in first] == [
        ("k2", "shard1.tar"),
        ("red.tif", "images"),
    ]
    assert first[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert first[0]["inclusion"] == pytest.approx(0, abs=1e-3)
    assert search(lab, *words) == 0
    shown = capsys.readouterr().out
    assert shown.count("similarity") == 2
    ranks = [line.split()[0] for line in shown.splitlines() if line.startswith("   ") and "similarity" not in line]
    assert ranks == ["1", "2", "3"] * 2
    assert not [path.name for path in (lab / "out").iterdir() if path.name.startswith(".")], "nothing of the reading"


def test_the_commands_that_are_suggested_work_for_captions_alone(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["embed", "--checkpoint", str(lab / "run"), "--device", "cpu", "--lines", str(lab / "lines.txt")]
    words += ["--out", "captions"]
    for suggested in ("search", "data rank", "search"):  # lines cannot be filtered
        assert main(words) == 0
        words = shlex.split(capsys.readouterr().out.rpartition("next: prolip ")[2])
        assert " ".join(words).startswith(suggested)
    assert main(words) == 0
    assert main(["search", "--embeddings", "captions", "--text", "a"]) == 2
    assert "no image embeddings: search them with --find text" in capsys.readouterr().err


def test_text_and_image_queries_combine_and_the_sheet_shows_images(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red, sheet = lab / "images" / "red.tif", tmp_path / "sheet.html"
    ask = ["search", "--embeddings", str(lab / "out"), "--device", "cpu", "--text", "nature", "--image", str(red)]
    found = found_by([*ask, "--k", "1", "--score", "mean", "--sheet", str(sheet)], capsys)
    assert [entry["query"] for entry in found] == ["nature", str(red)]
    assert found[1]["answers"][0]["key"] == "red.tif"
    words, image = sheet.read_text().split("<h2")[1:]
    assert [part.count("data:image/jpeg") for part in (words, image)] == [1, 2]


def test_a_text_query_finds_captions_and_the_sheet_shows_them(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "new" / "sheet.html"
    ask = ["search", "--embeddings", str(lab / "out"), "--device", "cpu", "--text", "nature", "an emoji: travel"]
    found = found_by([*ask, "--find", "text", "--k", "13", "--sheet", str(sheet)], capsys)
    assert [len(entry["answers"]) for entry in found] == [13, 13]
    assert [entry["answers"][0]["key"] for entry in found] == ["2", "1"]
    page = sheet.read_text()
    assert page.count("<blockquote>") == 26
    assert "an &lt;emoji&gt;" in page
    assert "<emoji>" not in page
    assert page.count("data:image/jpeg") == 20, "captions of images are shown with them"
    assert "not found" not in page
    assert "out: nearest by csd" in page, "the default score"


def test_captions_are_shown_from_shards_folders_and_text_files(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"a": ["food"], "b": ["travel", "an emoji"], "c": 7}
    members = [(f"{key}.json", json.dumps({"words": {"all": found}}).encode()) for key, found in words.items()]
    write_tar(tmp_path / "j.tar", sorted([*members, *((f"{key}.png", encoded((9, 9, 9))) for key in "abc")]))
    run = ["embed", "--checkpoint", str(lab / "run"), "--device", "cpu", "--shards", str(tmp_path / "j.tar")]
    assert main([*run, "--what", "both", "--caption_key", "words.all", "--out", str(tmp_path / "out")]) == 0
    ask = ["search", "--embeddings", str(tmp_path / "out"), "--device", "cpu", "--text", "food", "--find", "text"]
    sheet = ["--sheet", str(tmp_path / "a.html")]
    first, second = found_by(ask, capsys)[0]["answers"]
    assert (first["key"], first["caption"], second["caption"]) == ("a", "food", "travel / an emoji")
    assert main([*ask, *sheet]) == 0
    assert "j.tar  “food”" in capsys.readouterr().out
    assert "<blockquote>food</blockquote>" in (tmp_path / "a.html").read_text()
    rank = ["data", "rank", "--embeddings", str(tmp_path / "out"), "--out", str(tmp_path / "r.csv")]
    assert main([*rank, "--by", "text", "--sheet", str(tmp_path / "b.html")]) == 0
    assert "<blockquote>travel / an emoji</blockquote>" in (tmp_path / "b.html").read_text()
    # Images that are found have no words in the table, and what is gone is said and shown as not found.
    (tmp_path / "j.tar").unlink()
    assert "caption" not in found_by([*ask[:-1], "image", *sheet], capsys)[0]["answers"][0]
    assert "not found" in (tmp_path / "a.html").read_text()
    assert main(ask) == 0
    assert "“" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def built(lab: Path) -> Path:
    """Shards that `prolip data build` wrote from files with names, embedded."""
    for number, name in enumerate(("sea_lions/0012_grey.png", "sea_lions/a.webp", "foxes/red.jpg")):
        path = lab / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (number * 90, 40, 200)).save(path)
    assert main(["data", "build", "folder", "--images", str(lab / "photos"), "--out", str(lab / "shards")]) == 0
    words = ["--shards", str(lab / "shards" / "train-*.tar"), "--what", "both", "--device", "cpu"]
    assert main(["embed", "--checkpoint", str(lab / "run"), *words, "--out", str(lab / "built")]) == 0
    return lab / "built"


def test_images_are_shown_with_their_file_names_and_captions(
    built: Path, lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red = lab / "photos" / "foxes" / "red.jpg"
    ask = ["search", "--embeddings", str(built), "--device", "cpu", "--image", str(red), "--score", "mean", "--k", "3"]
    answers = found_by(ask, capsys)[0]["answers"]
    assert (answers[0]["file"], answers[0]["caption"]) == ("foxes/red.jpg", "foxes")
    assert {answer["file"] for answer in answers} == {"foxes/red.jpg", "sea_lions/0012_grey.png", "sea_lions/a.webp"}
    assert main(ask) == 0
    assert "train-000000.tar  foxes/red.jpg  “foxes”" in capsys.readouterr().out
    assert main(["data", "rank", "--embeddings", str(built), "--out", str(tmp_path / "r.csv")]) == 0
    assert "train-000000.tar  sea_lions/0012_grey.png  “sea lions”" in capsys.readouterr().out


def test_remote_contents_are_fetched_only_for_a_sheet(
    lab: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, far = (str(lab / "images"), "red.tif"), ("http://127.0.0.1:9/0.tar", "k")
    found = fetch_local([here, far], None, "txt")
    assert found == {here: Contents(None, "a picture", None)}
    assert not caplog.records


def test_deleted_images_are_shown_as_not_found(lab: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [
        (str(lab / "shard0.tar"), "k1"),
        (str(lab / "shard0.tar"), "gone"),
        (str(lab / "images"), "gone.png"),
        (str(lab / "lines.txt"), "1"),
        (str(lab / "lines.txt"), "99"),
    ]
    found = fetch(names, 16)
    assert not caplog.records
    assert fetch([(str(tmp_path / "gone.tar"), "a"), names[3]], 16).keys() == {names[3]}
    assert "gone.tar: its images and captions cannot be shown" in caplog.text
    assert found[names[0]].caption == "an <emoji>"
    image = found[names[0]].image
    assert image is not None
    assert image.shape == (16, 16, 3)
    assert names[1] not in found
    assert found[names[2]].image is None
    assert found[names[3]].caption == "an emoji: travel"
    assert names[4] not in found


def test_the_next_step_after_a_sheet_is_to_open_it(lab: Path, tmp_path: Path) -> None:
    replace(Manifest.read(lab / "out"), has_variances=False, rows={"image": 1}).write(tmp_path)
    options = SearchOptions(embeddings=tmp_path, text=("a",))
    assert "--sheet FILE.html" in _next(options)
    assert _next(replace(options, sheet=Path("found.html"))) == "open found.html in a browser"


def test_a_model_that_was_named_in_another_folder_is_asked_for(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(lab / "out", tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest | {"checkpoint": "runs/then"}))
    words = ["search", "--embeddings", str(tmp_path / "out"), "--text", "a"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "out was embedded with runs/then: runs/then is neither a file nor a folder" in said
    assert "name it with --checkpoint" in said
    assert main([*words, "--checkpoint", str(lab / "run")]) == 0


def test_errors_of_search_name_the_reason(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert search(lab, *words) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "nothing to search for" in said()
    assert "k is 0: it must be at least 1" in said("--text", "a", "--k", "0")
    assert "cannot be read" in said("--image", str(lab / "lines.txt"))
    write_run(tmp_path / "other", tmp_path / "tokenizer.json", context_length=9)
    assert "is not the model that" in said("--text", "a", "--checkpoint", str(tmp_path / "other"))
    assert "no-run" in said("--text", "a", "--checkpoint", "no-run")
    # What cannot be written is said before a model is opened.
    found = said("--text", "a", "--checkpoint", "no-run", "--sheet", str(tmp_path))
    assert f"{tmp_path} is a folder, where a file is needed: name a file" in found
    if not torch.cuda.is_available():
        assert 'device is "cuda", but torch sees no GPU' in said("--text", "a", "--device", "cuda")
    assert main(["search", "--embeddings", str(tmp_path), "--text", "a"]) == 2
    assert re.search(r"has no manifest\.json", capsys.readouterr().err)
