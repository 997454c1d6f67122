"""Words of old versions and other programs get an error with ours; other words get no suggestion."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

from prolip.cli import main
from prolip.errors import UserError
from prolip.other_words import COMMANDS, OPTIONS, nearest
from prolip.train.config import load_config

TABLE = [(command, old, new) for command, words in OPTIONS.items() for old, new in words.items()]


@cache
def flags(command: str) -> set[str]:
    """The options in a command's help."""
    told = io.StringIO()
    with redirect_stdout(told):
        assert main([*command.split(), "--help-all" if command == "train" else "--help"]) == 0
    also = {"--shards", "--threads"} if command == "train" else set()
    return also | set(re.findall(r"(?<![\w-])--[a-zA-Z][\w.-]*", told.getvalue()))


def typed(old: str) -> list[str]:
    """The words of a command line for an entry of the table."""
    words = old.replace(".N.", ".0.").split()
    return [*words, "value"] if len(words) == 1 else [words[0], words[1].lower()]


@pytest.mark.parametrize(("command", "old", "new"), TABLE, ids=str)
def test_an_old_or_foreign_flag_is_answered_with_ours(
    command: str, old: str, new: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = [old] if old == "SHARD" else typed(old)
    assert main([*command.split(), *words]) == 2
    said = capsys.readouterr().err + caplog.text
    assert f"write {new.replace('.N.', '.0.')}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("command", "old", "new"), TABLE, ids=str)
def test_suggested_flags_exist_and_replaced_ones_do_not(command: str, old: str, new: str) -> None:
    known = flags(command)
    if len(old.split()) == 1:
        assert old not in known
    ours = set(re.findall(r"(?<![\w-])--[a-z][\w.]*", new)) - {"--nproc", "--nnodes", "--dry", "--gpus"}
    jobs = {flag for flag in ours if flag.startswith("--validation.jobs")}  # the default has none
    assert ours - jobs <= known


def test_old_words_in_a_recipe_are_answered_with_ours(tmp_path: Path) -> None:
    for key, answer in (("run_dir", "write out"), ("validation.jobs", "write validation.jobs.1.class_key")):
        text = 'run_dir = "x"' if key == "run_dir" else "[[validation.jobs]]\n[[validation.jobs]]\nlabel = 'cls'"
        (tmp_path / "mine.toml").write_text(text)
        with pytest.raises(UserError, match=f"in .*mine.toml: {answer}$"):
            load_config(["demo", str(tmp_path / "mine.toml")])


def test_train_accepts_the_short_flags_for_shards_and_threads() -> None:
    config = load_config(["demo", "--shards", "a.tar", "b.tar", "--threads=3"])
    assert (config.data.shards, config.data.num_threads) == (("a.tar", "b.tar"), 3)


@pytest.mark.parametrize(
    ("program", "other", "ours"), [(prog, old, new) for prog, words in COMMANDS.items() for old, new in words.items()]
)
def test_another_command_is_answered_with_ours(
    program: str, other: str, ours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*program.split()[1:], other]) == 2
    assert f"no command {other!r}: write `{program} {ours}`" in capsys.readouterr().err
    ours = re.sub(" --.*", "", ours)
    assert main([*program.split()[1:], *ours.split(), "--help"]) == 0


def keys() -> Iterator[str]:
    yield from (flag[2:] for flag in flags("train"))


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("optim.lrr", "optim.lr"),
        ("precison", "precision"),
        ("data.shard", "data.shards"),
        ("checkpoint_evry", "checkpoint_every"),
        ("model.txt.layers", "model.text.layers"),
        ("xyz", None),
        ("nprocs", None),
        ("project", None),
        ("color", None),
    ],
)
def test_only_similar_words_are_suggested(word: str, meant: str | None) -> None:
    assert nearest(word, keys()) == meant


def test_an_unknown_word_points_to_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zzz"]) == 2
    assert "prolip: no command 'zzz': prolip --help lists them" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"^unknown key zzz: prolip train --help-all lists all$"):
        load_config(["demo", "--zzz", "1"])
