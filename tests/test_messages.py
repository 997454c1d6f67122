"""Every error that a user can cause has a field and a rule."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "python" / "prolip"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
USER_ERRORS = {"UserError"}
"""`UserError` and its subclasses that take the same arguments."""
for _ in range(2):  # a subclass of a subclass
    USER_ERRORS |= {
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id in USER_ERRORS for base in node.bases)
        and not any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body)
    }


def _is_text(node):
    return isinstance(node, ast.Constant | ast.JoinedStr)


def test_every_error_has_a_field_and_a_rule():
    calls = 0
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if not isinstance(node, ast.Call) or name not in USER_ERRORS | {"check"}:
                continue
            field, rule, *value = node.args[name == "check" :]
            calls += 1
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            assert not _is_text(field) or ": " not in ast.unparse(field), f"{where}: the field has a rule in it"
            assert "(got " not in ast.unparse(rule), f"{where}: the value is the third argument"
            assert len(value) <= 1, where
    assert calls > 300
