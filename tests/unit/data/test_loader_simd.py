"""`PROLIP_SIMD` selects the vector instructions, `simd_level` says which they are; a wrong value is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prolip.data import simd_levels

OPEN_LOADER = """
from prolip.data import BatchLoader, LoaderConfig
BatchLoader(LoaderConfig(shards=("nowhere.tar",), batch_size=1, image_size=8))
"""
ONE_IMAGE = """
from prolip.data import preprocess_image
preprocess_image(b"", 8)
"""
SAY_LEVEL = """
from prolip.data import simd_level
print(simd_level())
"""


def run(code: str, level: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PROLIP_SIMD": level},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("asked", ["", *simd_levels()])
def test_the_loader_runs_at_the_level_asked_for_or_at_the_fastest(asked: str, tmp_path: Path) -> None:
    assert run(SAY_LEVEL, asked, tmp_path).stdout.strip() == (asked or simd_levels()[-1])


@pytest.mark.parametrize("code", [OPEN_LOADER, ONE_IMAGE, SAY_LEVEL], ids=["loader", "image", "level"])
def test_an_unknown_simd_level_is_a_user_error(code: str, tmp_path: Path) -> None:
    last = run(code, "avx1024", tmp_path).stderr.strip().splitlines()[-1]
    assert last.startswith("prolip.errors.UserError: PROLIP_SIMD: this processor can run portable"), last
