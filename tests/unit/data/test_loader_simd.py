"""`PROLIP_SIMD` selects the vector instructions; a wrong value is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPEN_LOADER = """
from prolip.data import BatchLoader, LoaderConfig
BatchLoader(LoaderConfig(shards=("nowhere.tar",), batch_size=1, image_size=8))
"""
ONE_IMAGE = """
from prolip.data import preprocess_image
preprocess_image(b"", 8)
"""


@pytest.mark.parametrize("code", [OPEN_LOADER, ONE_IMAGE], ids=["loader", "image"])
def test_an_unknown_simd_level_is_a_user_error(code: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PROLIP_SIMD": "avx1024"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("prolip.errors.UserError: PROLIP_SIMD is avx1024: this processor can run portable"), last
