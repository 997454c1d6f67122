"""Notice the official research package (naver-ai/prolip), whose module has this package's name.

Python imports whichever comes first. If both are installed into one folder, their files mix. This check runs at every
import, so it only lists the folders of `sys.path`, as Python's own import does, and reads the metadata of packages
whose name starts with prolip.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_FOREIGN = "model.py"
"""A file in the research package's folder that ours never has."""


def find_other(own: str, search_path: Iterable[str]) -> str | None:
    """Return the path of another package that provides the module `prolip`; None if there is none.

    Args:
        own: this package's folder.
        search_path: the folders of `sys.path`.
    """
    if os.path.exists(os.path.join(own, _FOREIGN)):
        return os.path.join(own, _FOREIGN)
    for folder in search_path:
        try:
            names = os.listdir(folder or os.curdir)
        except OSError:  # an archive, or no folder
            continue
        for name in names:
            if name.startswith("prolip"):
                path = os.path.join(folder, name)
                if _is_other_folder(path) if name == "prolip" else _is_other_metadata(path):
                    return path
    return None


def _is_other_folder(path: str) -> bool:
    """Whether this is a package `prolip` without our compiled module."""
    return os.path.exists(os.path.join(path, "__init__.py")) and not os.path.exists(os.path.join(path, "_core"))


def _is_other_metadata(path: str) -> bool:
    """Whether this describes an installed package that provides `prolip`, but not our compiled module."""
    if not path.endswith((".dist-info", ".egg-info")):
        return False
    record = _lines(os.path.join(path, "RECORD"))
    provides = "prolip" in _lines(os.path.join(path, "top_level.txt"))
    provides |= any(line.startswith("prolip/__init__.py") for line in record)
    return provides and not any(line.startswith("prolip/_core") for line in record)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []
