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


@pytest.mark.parametrize("command", OPTIONS)
def test_an_old_or_foreign_flag_is_answered_with_ours(
    command: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for old, new in OPTIONS[command].items():
        words = [old] if old == "SHARD" else typed(old)
        assert main([*command.split(), *words]) == 2, old
        said = capsys.readouterr().err + caplog.text
        caplog.clear()
        assert f"write {new.replace('.N.', '.0.')}" in said
        assert "Traceback" not in said


@pytest.mark.parametrize("command", OPTIONS)
def test_suggested_flags_exist_and_replaced_ones_do_not(command: str) -> None:
    known = flags(command)
    assert not known & {old for old in OPTIONS[command] if len(old.split()) == 1}
    suggested = set(re.findall(r"(?<![\w-])--[a-z][\w.]*", " ".join(OPTIONS[command].values())))
    elsewhere = {"--nproc", "--nnodes", "--dry", "--gpus"}
    jobs = {flag for flag in suggested if flag.startswith("--validation.jobs")}  # the default has none
    assert suggested - elsewhere - jobs <= known


def test_old_words_in_a_recipe_are_answered_with_ours(tmp_path: Path) -> None:
    for key, answer in (("run_dir", "write out"), ("validation.jobs", "write validation.jobs.1.class_key")):
        text = 'run_dir = "x"' if key == "run_dir" else "[[validation.jobs]]\n[[validation.jobs]]\nlabel = 'cls'"
        (tmp_path / "mine.toml").write_text(text)
        with pytest.raises(UserError, match=f"in .*mine.toml: {answer}$"):
            load_config(["demo", str(tmp_path / "mine.toml")])


def test_train_accepts_the_short_flags_for_shards_and_threads() -> None:
    config = load_config(["demo", "--shards", "a.tar", "b.tar", "--threads=3"])
    assert (config.data.shards, config.data.num_threads) == (("a.tar", "b.tar"), 3)


@pytest.mark.parametrize("program", COMMANDS)
def test_another_command_is_answered_with_ours(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = program.split()[1:]
    for other, ours in COMMANDS[program].items():
        assert main([*before, other]) == 2
        assert f"no command {other!r}: write `{program} {ours}`" in capsys.readouterr().err
        assert main([*before, *re.sub(" --.*", "", ours).split(), "--help"]) == 0
        capsys.readouterr()


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
