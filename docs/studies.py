"""Code that the studies share: each is the script beside the page that it makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence

import numpy as np


def run_module(module: str, *arguments: object) -> None:
    """`python -m module` in its own process; subprocess.CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation of percentages; a single value has no deviation."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """In Markdown, with an empty line after it."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    sys.stdout.write("".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n")
