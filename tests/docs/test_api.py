"""The API pages cover what users import: every name in `__all__` of the public rooms."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

API = Path(__file__).resolve().parents[2] / "docs" / "api"
PUBLIC = (
    "prolip",
    "prolip.gaussian",
    "prolip.data",
    "prolip.data.device",
    "prolip.models",
    "prolip.losses",
    "prolip.checkpoint",
    "prolip.eval",
    "prolip.decisions",
    "prolip.embeddings",
    "prolip.adapt",
    "prolip.suites",
    "prolip.train.config",
    "prolip.train.logging",
    "prolip.train.cost",
    "prolip.interop",
    "prolip.interop.transformers",
)
DOCUMENTED = [
    name
    for page in sorted(API.glob("*.md"))
    for name in re.findall(r"^\.\. auto\w+:: (\S+)$", page.read_text(encoding="utf-8"), re.M)
]


def resolve(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


@pytest.mark.parametrize("room", PUBLIC)
def test_every_public_name_of_a_room_is_documented(room: str) -> None:
    """An object counts wherever it is documented, because constants are documented where they are defined."""
    documented = {id(resolve(name)) for name in DOCUMENTED}
    exported = import_module(room).__all__
    assert [name for name in exported if id(resolve(f"{room}.{name}")) not in documented] == []


def test_no_name_is_documented_twice() -> None:
    assert sorted(DOCUMENTED) == sorted(set(DOCUMENTED))


@pytest.mark.parametrize("page", sorted(API.glob("*.md")), ids=lambda page: page.stem)
def test_every_group_of_the_api_pages_has_an_introduction(page: Path) -> None:
    for title, text in re.findall(r"^## (.+)\n\n(.*)\n", page.read_text(encoding="utf-8"), re.M):
        assert re.search(r"[.)]$", text), f"{page.stem}, {title}: no introductory sentence"
