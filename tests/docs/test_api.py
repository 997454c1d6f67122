"""The public names: pages and examples import no others, and the API pages cover them."""

import ast
import re
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "docs" / "api"
PUBLIC = (
    "prolip",
    "prolip.gaussian",
    "prolip.data",
    "prolip.data.device",
    "prolip.models",
    "prolip.pixels",
    "prolip.losses",
    "prolip.checkpoint",
    "prolip.metrics",
    "prolip.calibration",
    "prolip.distributed",
    "prolip.embeddings",
    "prolip.inference",
    "prolip.pretrained",
    "prolip.adapt",
    "prolip.evaluation",
    "prolip.train",
    "prolip.train.config",
    "prolip.train.logging",
    "prolip.interop",
    "prolip.interop.open_clip",
    "prolip.interop.transformers",
)
DOCUMENTED = [
    name
    for page in sorted(API.glob("*.md"))
    for name in re.findall(r"^\.\. auto\w+:: (\S+)$", page.read_text(encoding="utf-8"), re.M)
]


SOURCES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]


def resolve(name):
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


@pytest.mark.parametrize("room", PUBLIC)
def test_every_public_name_of_a_room_is_documented(room):
    """An object counts wherever it is documented, because constants are documented where they are defined."""
    documented = {id(resolve(name)) for name in DOCUMENTED}
    exported = import_module(room).__all__
    assert [name for name in exported if id(resolve(f"{room}.{name}")) not in documented] == []


def test_no_name_is_documented_twice():
    assert sorted(DOCUMENTED) == sorted(set(DOCUMENTED))


@pytest.mark.parametrize("page", sorted(API.glob("*.md")), ids=lambda page: page.stem)
def test_every_group_of_the_api_pages_has_an_introduction(page):
    for title, text in re.findall(r"^## (.+)\n\n(.*)\n", page.read_text(encoding="utf-8"), re.M):
        assert re.search(r"[.)]$", text), f"{page.stem}, {title}: no introductory sentence"


def imports_of(source):
    """What a page's Python blocks, or a program, import from prolip: module and name."""
    text = source.read_text(encoding="utf-8")
    blocks = [text] if source.suffix == ".py" else re.findall(r"^ *```python\n(.*?)^ *```", text, re.M | re.S)
    nodes = [node for block in blocks for node in ast.walk(ast.parse(dedent(block)))]
    names = {
        (node.module, name.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "prolip"
        for name in node.names
    }
    return names | {
        (name.name, "__all__")
        for node in nodes
        if isinstance(node, ast.Import)
        for name in node.names
        if name.name.split(".")[0] == "prolip"
    }


def test_pages_and_examples_import_only_public_names():
    used = {(page.name, *name) for page in SOURCES if "_build" not in page.parts for name in imports_of(page)}
    assert len(used) > 40
    private = [
        (page, module, name)
        for page, module, name in sorted(used)
        if module not in PUBLIC or name not in {*import_module(module).__all__, "__all__"}
    ]
    assert private == []
