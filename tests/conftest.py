"""What every test may use: where the optional inputs lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path:
    """The folder of inputs that may not be redistributed (photographs, full reference vectors); it may be absent."""
    return Path(os.environ.get("PROLIP_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name!r} beside the checkout and PROLIP_SHARED is not set")
    return folder


@pytest.fixture(scope="session")
def photos(shared: Path) -> list[Path]:
    found = sorted((shared / "photos").glob("*.JPEG"))
    if not found:
        pytest.skip("the shared folder has no photos/*.JPEG")
    return found
