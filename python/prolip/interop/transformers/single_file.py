"""Writes the model's code as one file, which a folder of transformers carries so that it loads without prolip.

The file is prolip's own source: the definitions that the classes of this room reach, module by module, without the
imports between them. So there is one network, not a copy that could drift.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

CODE_MODULE = "modeling_prolip"
CODE_FILE = f"{CODE_MODULE}.py"
_ROOTS = ("prolip.interop.transformers.modeling", "prolip.interop.transformers.processing")
_HEADER = '''"""ProLIP for transformers: images and texts as Gaussians (arXiv:2410.18857).

Written by prolip {version} (MIT licence) from its own source, so that a model loads without it:
AutoModel.from_pretrained(FOLDER, trust_remote_code=True).
"""

from __future__ import annotations
'''
_STANDALONE = '''
CODE_MODULE = __name__.rpartition(".")[2]


def write_code(folder: Path) -> None:
    """Copy this file into `folder`."""
    target = Path(folder) / f"{CODE_MODULE}.py"
    if not target.exists() or not target.samefile(__file__):
        shutil.copyfile(__file__, target)
'''
"""Replaces this module in the file, which then copies itself."""


def write_code(folder: Path) -> None:
    """Write the model's code into `folder`."""
    (Path(folder) / CODE_FILE).write_text(source(), encoding="utf-8")


@cache
def source() -> str:
    """Return the text of the file."""
    modules: dict[str, _Module] = {}
    for root in _ROOTS:
        for name in _module(root, modules).definitions:
            _reach(root, name, modules)
    owners: dict[str, str] = {}
    for name, module in modules.items():
        for definition in module.reached:
            assert owners.setdefault(definition, name) == name, f"{definition} is defined in two modules"
    parts = [_HEADER.format(version=version("prolip")), "\n".join(_imports(modules)), _STANDALONE]
    for name in _ordered(modules):
        reached = [text for definition, text in modules[name].texts() if definition in modules[name].reached]
        if reached:
            parts += [f"\n# {'-' * 117}\n# {name}\n", *reached]
    return "\n".join(part.rstrip() + "\n" for part in parts)


class _Module:
    """A module's source: its definitions, what it imports, and which definitions were reached."""

    def __init__(self, name: str) -> None:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        text = Path(spec.origin).read_text(encoding="utf-8")
        self.lines = text.splitlines()
        self.body = ast.parse(text).body
        self.definitions: dict[str, ast.stmt] = {name: node for node in self.body for name in _defined(node)}
        self.reached: set[str] = set()
        self.ours: dict[str, str] = {}
        """Modules of prolip, by the name that is imported from them."""
        self.others: dict[str, str] = {}
        """Other import statements, by the name that they define."""
        for node in self.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "prolip":
                assert all(alias.asname is None for alias in node.names), f"{name} renames what it imports"
                self.ours.update({alias.name: node.module for alias in node.names})
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self.others.update(_statements(node))

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield name and source of each definition, in order, with the comments above and the docstring below."""
        for index, node in enumerate(self.body):
            below = self.body[index + 1] if index + 1 < len(self.body) else None
            documents = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            decorators = node.decorator_list if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
            first = min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1
            while first > 0 and self.lines[first - 1].startswith("#"):
                first -= 1
            last = (below if documents and below is not None else node).end_lineno
            space = "\n" if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
            for name in _defined(node):
                yield name, space + "\n".join(self.lines[first:last])


def _module(name: str, modules: dict[str, _Module]) -> _Module:
    if name not in modules:
        modules[name] = _Module(name)
    return modules[name]


def _reach(module_name: str, name: str, modules: dict[str, _Module]) -> None:
    """Mark a definition, and all that it uses."""
    module = _module(module_name, modules)
    if name in module.reached:
        return
    module.reached.add(name)
    for node in ast.walk(module.definitions[name]):
        if isinstance(node, ast.Name) and node.id in module.definitions:
            _reach(module_name, node.id, modules)
        elif isinstance(node, ast.Name) and module.ours.get(node.id, __name__) != __name__:
            _reach(module.ours[node.id], node.id, modules)


def _imports(modules: dict[str, _Module]) -> list[str]:
    """Return the import statements of the reached definitions, and of the code that copies the file."""
    used = {"import shutil", "from pathlib import Path"}
    for module in modules.values():
        for definition in module.reached:
            names = {node.id for node in ast.walk(module.definitions[definition]) if isinstance(node, ast.Name)}
            used |= {statement for name, statement in module.others.items() if name in names}
    return sorted(used, key=lambda statement: (statement.startswith("from"), statement))


def _ordered(modules: dict[str, _Module]) -> list[str]:
    """Return the modules, each after those that it imports."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name in modules and name not in ordered:
            for other in modules[name].ours.values():
                visit(other)
            ordered.append(name)

    for root in _ROOTS:
        visit(root)
    return ordered


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name) and target.id != "__all__"]


def _statements(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Return one import statement per name."""
    start = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
    statements = {}
    for alias in node.names:
        renamed = f" as {alias.asname}" if alias.asname else ""
        statements[alias.asname or alias.name.partition(".")[0]] = f"{start}import {alias.name}{renamed}"
    return {name: statement for name, statement in statements.items() if "__future__" not in statement}
