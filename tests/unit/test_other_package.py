"""The official research package has a module of the same name: a warning at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest

import prolip
from prolip.other_package import find_other

OWN = str(Path(prolip.__file__).parent)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "found"),
    [
        # What each way of installing the research package leaves in a folder of sys.path.
        ({"prolip/__init__.py": "", "prolip/model.py": ""}, "prolip"),
        ({"prolip-1.0.dist-info/RECORD": "prolip/__init__.py,,\nprolip/model.py,,\n"}, "prolip-1.0.dist-info"),
        ({"prolip-1.0.dist-info/top_level.txt": "prolip\n"}, "prolip-1.0.dist-info"),
        ({"prolip.egg-info/top_level.txt": "prolip\n"}, "prolip.egg-info"),
        # Ours, another checkout of ours, and names that only begin alike.
        ({"prolip/__init__.py": "", "prolip/_core/__init__.pyi": ""}, None),
        ({"prolip-0.1.0.dist-info/RECORD": "prolip/__init__.py,,\nprolip/_core.abi3.so,,\n"}, None),
        ({"prolip-0.1.0.dist-info/RECORD": "prolip.pth,,\n"}, None),
        ({"prolip_more-1.0.dist-info/RECORD": "prolip_more/__init__.py,,\n"}, None),
        ({"prolip/notes.txt": ""}, None),
    ],
)
def test_a_package_that_provides_the_module_is_found(files: dict[str, str], found: str | None, tmp_path: Path) -> None:
    write(tmp_path, files)
    expected = None if found is None else str(tmp_path / found)
    assert find_other(OWN, [str(tmp_path / "none"), str(tmp_path)]) == expected


def test_files_of_both_packages_in_one_folder_are_reported(tmp_path: Path) -> None:
    mixed = write(tmp_path / "prolip", {"__init__.py": "", "_core/__init__.pyi": "", "model.py": ""})
    assert find_other(str(mixed), []) == str(mixed / "model.py")


def test_importing_beside_the_other_package_warns_once(tmp_path: Path) -> None:
    """And only when both are there."""
    write(tmp_path, {"prolip-1.0.dist-info/RECORD": "prolip/__init__.py,,\n"})
    for folder, times in ((tmp_path, 1), (tmp_path / "empty", 0)):
        path = os.pathsep.join([str(Path(OWN).parent), str(folder)])
        command = [sys.executable, "-W", "default", "-c", "import prolip; import prolip.errors"]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
        assert done.stderr.count("separate environments") == times, done.stderr
        assert done.stderr.count("prolip-1.0.dist-info") == times


def test_looking_for_the_other_package_takes_under_5_ms() -> None:
    times = []
    for _ in range(5):
        started = perf_counter()
        find_other(OWN, sys.path)
        times.append(perf_counter() - started)
    assert min(times) < 0.005
