"""The studies in docs/, as modules."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def read_study(name):
    """The names of a study; a function still reads the study's own globals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        return SimpleNamespace(**runpy.run_path(str(DOCS / f"{name}.py")))
