"""The wording of all errors in one file, tests/messages.txt, which is read as a whole.

`PROLIP_UPDATE=1 pytest tests/test_messages.py` rewrites it after a change.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "messages.txt"


def _template(node: ast.expr) -> str | None:
    """Return the text of a string, with {expressions} where values go."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = [
        str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
        for part in node.values
        if isinstance(part, ast.Constant | ast.FormattedValue)
    ]
    return "".join(parts)


def _raised(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = _template(node.exc.args[0])
            if text is not None:
                yield text


def test_the_wording_of_errors_is_that_of_the_golden_file() -> None:
    lines = []
    for path in sorted((ROOT / "python" / "prolip").rglob("*.py")):
        messages = sorted(set(_raised(path)))
        lines += [f"# {path.relative_to(ROOT)}", *messages] if messages else []
    for path in sorted((ROOT / "rust").glob("*/src/**/*.rs")):
        messages = re.findall(r'#\[error\(\s*"((?:[^"\\]|\\.)*)"', path.read_text(encoding="utf-8"))
        lines += [f"# {path.relative_to(ROOT)}", *messages] if messages else []
    text = "\n".join(line.replace("\n", "\\n") for line in lines) + "\n"
    if os.environ.get("PROLIP_UPDATE"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
