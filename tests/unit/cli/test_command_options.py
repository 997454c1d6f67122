"""Errors about shards and their store name the option as the user of the command spells it, the value, and the rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import write_words

from prolip.cli import main
from prolip.errors import UserError
from prolip.evaluation.caption_sets import open_captioned

COMMANDS = {
    "data index": ["--out", "made.index", "--shards"],
    "explore": ["--checkpoint", "no-model", "--shards"],
    "embed": ["--checkpoint", "no-model", "--out", "made", "--shards"],
    "bprw": ["--checkpoint", "no-model", "--class_key", "group", "--shards"],
}
SHARDS = {
    "absent": 'shards is "absent": there is no file absent',
    "": 'shards is "": a name is empty',
    "absent-*.tar": 'shards is "absent-*.tar": it matches no file',
    "a{0..1.tar": 'shards is "a{0..1.tar": a { has no }',
    "@absent": 'shards is "@absent": the list of shards cannot be read: No such file or directory (os error 2)',
    "@comments.txt": 'shards is "@comments.txt": the list names no shard',
    "list.txt": 'shards is "list.txt": line 3 of the list is "absent": there is no file absent',
}
STORE = [
    (["--store.connections", "0"], "store.connections is 0: it must be between 1 and 1024"),
    (["--store.cache_bytes", "1"], "store.cache_bytes is 1: a cache needs a folder: set store.cache_dir"),
]
TRAIN = ["train", "demo", "--out", "made", "--data.tokenizer.path", "words.json"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_words(tmp_path / "words.json")
    write_tar(tmp_path / "a.tar", [("0.png", encoded((1, 2, 3)))])
    (tmp_path / "comments.txt").write_text("# none\n")
    (tmp_path / "list.txt").write_text("# two\na.tar\nabsent\n")
    (tmp_path / "page.tar").write_bytes(b"<html>" * 100)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("given", "message"), SHARDS.items())
def test_an_error_about_shards_names_the_option(
    command: str, given: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), *COMMANDS[command], given]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"prolip {command}: {message}"


@pytest.mark.parametrize(("given", "message"), SHARDS.items())
def test_training_names_the_section_too(given: str, message: str, caplog: pytest.LogCaptureFixture) -> None:
    assert main([*TRAIN, "--shards", given]) == 2
    assert caplog.messages[-1] == f"prolip train: data.{message}"


@pytest.mark.parametrize(("words", "message"), STORE)
def test_an_error_about_the_store_names_the_option(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for command in ("data index", "explore"):
        assert main([*command.split(), *COMMANDS[command], "a.tar", *words]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"prolip {command}: {message}"
    option, value = words
    assert main([*TRAIN, "--shards", "a.tar", option.replace("--", "--data."), value]) == 2
    assert caplog.messages[-1] == f"prolip train: {message.replace('store.', 'data.store.')}"


def test_a_suite_names_its_option_for_data(folder: Path) -> None:
    with pytest.raises(UserError, match=r'^data is "list.txt": line 3 of the list is "absent": there is no file'):
        open_captioned("list.txt", folder)


def test_a_file_that_is_no_archive_is_said_to_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "index", "--shards", "page.tar", "--out", "made.index"]) == 2
    assert capsys.readouterr().err.endswith("; the file may not be a tar archive\n")


@pytest.mark.parametrize("option", ["nearest.alpha", "few_shot.alpha"])
def test_settings_of_a_section_are_named_with_it(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "imagenet", "--checkpoint", "no-model", "--data", ".", f"--{option}", "0"]) == 2
    assert capsys.readouterr().err == f"prolip eval imagenet: {option} is 0.0: it must be above 0 and finite\n"


def test_the_demo_names_the_folder_of_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--data", "a.tar", "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert said == "prolip demo: a.tar is a file; name a new or empty folder\n"


def test_a_negative_number_of_threads_is_found_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", *COMMANDS["embed"], "a.tar", "--threads", "-1"]) == 2
    assert capsys.readouterr().err == "prolip embed: threads is -1: it must not be negative\n"
