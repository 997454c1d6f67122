"""One parser for files and flags: what it reads and refuses; writing and reading agree."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from prolip.train import flags


@dataclass(frozen=True, kw_only=True)
class Source:
    key: str = "txt"
    """Key."""
    general: tuple[str, ...] = ()
    """More general keys."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    sources: tuple[Source, ...] = (Source(),)
    """Sources."""


@dataclass(frozen=True, kw_only=True)
class Part:
    lr: float = 1e-3
    """Rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Two numbers."""
    clip: float | None = 1.0
    """May be none."""
    fused: bool = False
    """A truth."""
    mode: Literal["a", "b"] = "a"
    """A choice."""
    path: Path | None = None
    """A path."""
    derived: int = 3
    """Follows."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    name: str = "x"
    """Name."""
    part: Part = field(default_factory=Part)
    """Part."""
    slots: tuple[Slot, ...] = (Slot(),)
    """Slots."""


DERIVED = frozenset({"part.derived"})


def read(*tables: dict[str, Any], words: tuple[str, ...] = ()) -> Tree:
    named = [(f"{number}.toml", table) for number, table in enumerate(tables)]
    return flags.parse(Tree(), named, words, derived=DERIVED, prog="test")


def test_later_files_win_and_flags_win_over_files() -> None:
    tree = read(
        {"name": "first", "part": {"lr": 1, "mode": "b"}},
        {"part": {"lr": 2.5}},
        words=("--part.betas", "0.1", "-0.2", "--part.fused=True"),
    )
    assert tree == Tree(name="first", part=Part(lr=2.5, mode="b", betas=(0.1, -0.2), fused=True))


def test_a_list_of_tables_sets_the_length_and_replaces_the_list_of_earlier_files() -> None:
    earlier = {"slots": [{}, {}, {}]}
    later = {"slots": [{"sources": [{"key": "a", "general": ["b", "c"]}, {"key": "d"}]}]}
    tree = read(earlier, later, words=("--slots.0.sources.1.key", "e"))
    assert tree.slots == (Slot(sources=(Source(key="a", general=("b", "c")), Source(key="e"))),)


@pytest.mark.parametrize(
    ("table", "words", "message"),
    [
        ({"part": {"lrr": 1}}, (), "unknown key part.lrr in 0.toml, did you mean part.lr"),
        ({}, ("--part.lrr", "1"), "unknown key part.lrr, did you mean part.lr"),
        ({}, ("--slots.1.sources.0.key=x",), "unknown key slots.1.sources.0.key, did you mean slots.0.sources.0.key"),
        ({"part": 3}, (), "part in 0.toml has no value of its own, but keys such as part.lr"),
        ({"slots": ["a"]}, (), "slots in 0.toml has no value of its own, but keys such as slots.0.sources.0.key"),
        ({"part": {"lr": "fast"}}, (), "--part.lr is 'fast': it must be a number"),
        ({}, ("--part.mode", "c"), "--part.mode is 'c': it must be one of 'a', 'b'"),
        ({}, ("--part.betas", "1"), "--part.betas needs 2 values"),
        ({"part": {"derived": 4}}, (), "key part.derived in 0.toml cannot be set"),
    ],
)
def test_errors_name_the_key(table: dict[str, Any], words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(table, words=words)


@pytest.mark.parametrize(
    "tree",
    [
        Tree(),
        Tree(name='quote " and \\ and é\n', part=Part(lr=1e-7, clip=None, path=Path("a b/c"), fused=True)),
        Tree(part=Part(lr=float("inf"), betas=(-1.0, 1e30))),
        Tree(slots=(Slot(sources=(Source(), Source(general=("a", "b")))), Slot())),
    ],
)
def test_a_written_config_reads_back_equal(tree: Tree) -> None:
    text = flags.to_toml(tree, derived=DERIVED)
    assert "derived" not in text
    assert read(tomllib.loads(text)) == tree


def test_help_shows_every_key_with_its_doc(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read({"part": {"lr": 0.25}}, words=("--help",))
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--part.lr FLOAT" in shown
    assert "Rate." in shown
    assert "--slots.0.sources.0.general" in shown
