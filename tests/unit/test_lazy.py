"""Public names of a room that are imported when first used."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from prolip.lazy import lazy_names


def test_names_come_from_the_imports_for_type_checkers(tmp_path: Path) -> None:
    source = tmp_path / "__init__.py"
    source.write_text(
        "from math import tau\nif TYPE_CHECKING:\n    from math import e, pi\n    from no_such import gone\n"
        "if other:\n    from math import inf\n"
    )
    find = lazy_names("room", str(source))
    assert (find("e"), find("pi")) == (math.e, math.pi)
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        find("gone")
    for name in ("tau", "inf", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module 'room' has no attribute '{name}'"):
            find(name)


def test_completion_offers_the_public_names_before_they_are_used() -> None:
    code = "import prolip, prolip.metrics as m; print(*dir(prolip)); print(set(m.__all__) <= set(dir(m)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"load", "csd", "Gaussian", "metrics", "True"} <= set(shown)
    assert not {"sys", "warnings", "TYPE_CHECKING", "lazy_names", "annotations"} & set(shown)


def test_importing_the_package_and_listing_models_does_not_import_torch() -> None:
    code = "import sys, prolip; prolip.list_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
