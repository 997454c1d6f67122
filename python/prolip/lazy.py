"""Import a room's public names when they are first used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__` (PEP 562), which imports each public name when it is first used.

    `dir` of the package, which completion reads, then lists its public names and the modules in it.

    The names are those that the package imports below `if TYPE_CHECKING:`, so they are written once, for type checkers
    and for Python. Importing a room's settings thus imports neither torch nor numpy.

    Args:
        package: the package's `__name__`.
        file: its `__file__`.
    """

    @cache
    def homes() -> dict[str, str]:
        """The module of each name."""
        body = ast.parse(Path(file).read_text(encoding="utf-8")).body
        blocks = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
        return {alias.name: str(node.module) for node in imports for alias in node.names}

    def find(name: str) -> Any:
        if name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes()[name]), name)

    def public() -> list[str]:
        room = vars(sys.modules[package])
        return sorted({*room["__all__"], *(name for name in room if f"{package}.{name}" in sys.modules)})

    if package in sys.modules:
        vars(sys.modules[package])["__dir__"] = public
    return find
