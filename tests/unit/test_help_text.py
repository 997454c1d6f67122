"""Wrong words of a command line: one sentence that names the option and the rule, whatever the terminal's width."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Literal

import pytest
import tyro

from prolip.errors import UserError
from prolip.help_text import one_sentence, paragraphs


@dataclass(frozen=True, kw_only=True)
class Heads:
    """How heads learn."""

    steps: int = 3
    """Steps."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"heads.steps is {self.steps}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a command takes, in a line that is wider than the terminal of these tests, which has few columns.

    More about it.
    """

    checkpoint: str
    """A model. Its name."""
    out: str
    """A folder."""
    heads: Heads = field(default_factory=Heads)
    """Heads."""
    score: Literal["csd", "mean"] | None = None
    """A score."""
    batch_size: int = 4
    """Samples at a time."""
    share: float = 0.5
    """A share."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Two numbers."""
    limit: float | None = None
    """A limit."""
    max_side: int | None = None
    """A side."""
    prior: tuple[float, ...] = ()
    """Numbers."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if self.share > 1:
            raise UserError(f"share is {self.share}: it must be at most 1")


def parse(*words: str) -> Options:
    with one_sentence(words, "prolip try"):
        parsed = tyro.cli(Options, args=words, prog="prolip try", use_underscores=True, registry=paragraphs())
    return parsed


GIVEN = ("--checkpoint", "x", "--out", "y")
SEE = ": prolip try --help describes the options"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], f"--checkpoint and --out are missing{SEE}"),
        (["--checkpoint", "x"], f"--out is missing{SEE}"),
        (
            ["--chekpoint", "x", "--out", "y"],
            f"--checkpoint is missing and there is no --chekpoint (did you mean --checkpoint?){SEE}",
        ),
        ([*GIVEN, "--batch_sise", "3"], f"there is no --batch_sise (did you mean --batch_size?){SEE}"),
        ([*GIVEN, "--frobnicate"], f"there is no --frobnicate{SEE}"),
        ([*GIVEN, "--json", "True"], f"'True' belongs to no option{SEE}"),
        ([*GIVEN, "two words"], f"'two words' belongs to no option{SEE}"),
        ([*GIVEN, ""], f"'' belongs to no option{SEE}"),
        ([*GIVEN, "--batch_size"], "--batch_size needs a value"),
        ([*GIVEN, "--betas", "1"], "--betas needs 2 values"),
        ([*GIVEN, "--score", "foo"], "--score is 'foo': it must be one of 'None', 'csd', 'mean'"),
        ([*GIVEN, "--batch_size", "1.5"], "--batch_size is '1.5': it must be a whole number"),
        ([*GIVEN, "--share", "half"], "--share is 'half': it must be a number"),
        ([*GIVEN, "--limit", "5%"], "--limit is '5%': it must be a number or None"),
        ([*GIVEN, "--max_side", "1.5"], "--max_side is '1.5': it must be a whole number or None"),
        ([*GIVEN, "--prior", "1", "x"], "--prior is '1', 'x': a value has the wrong type"),
        ([*GIVEN, "--heads.steps", "0"], "heads.steps is 0: it must be at least 1"),
        ([*GIVEN, "--share", "2"], "share is 2.0: it must be at most 1"),
    ],
)
def test_a_wrong_word_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(UserError) as error:
        parse(*words)
    assert str(error.value) == sentence
    assert capsys.readouterr() == ("", "")
    assert (os.environ["COLUMNS"], os.environ["TERM"]) == ("20", "xterm")


def test_a_long_word_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    path = "/data/" + "very-long-name/" * 20
    with pytest.raises(UserError, match=f"'{path}'"):
        parse(*GIVEN, path)
    assert "COLUMNS" not in os.environ


def test_help_and_right_words_are_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse(*GIVEN) == Options(checkpoint="x", out="y")
    monkeypatch.setenv("COLUMNS", "70")
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 70
    above = (
        "What a command takes, in a line that is wider than the terminal of\n"
        "these tests, which has few columns.\n\nMore about it."
    )
    assert f"usage: prolip try [-h] [OPTIONS]\n\n{above}\n\n" in shown
    assert "Numbers. (default: none)" in shown


@pytest.mark.parametrize("no_color", ["", "1"])
def test_help_has_colours_on_a_terminal_unless_no_color_is_set(
    no_color: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit):
        parse("--help")
    assert ("\x1b[" in capsys.readouterr().out) == (not no_color)
