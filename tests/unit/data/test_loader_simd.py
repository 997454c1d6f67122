"""A wrong `PROLIP_SIMD` is an error wherever it is read. The Rust tests select levels with it."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code", ["BatchLoader(LoaderConfig(shards=('a.tar',), batch_size=1, image_size=8))", "decode(b'')", "simd_level()"]
)
def test_an_unknown_simd_level_is_a_user_error(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from prolip.data import *\n" + code],
        env=os.environ | {"PROLIP_SIMD": "avx1024"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("prolip.errors.UserError: PROLIP_SIMD: this processor can run portable"), last
