"""Contents of files: text, and checksums."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

from prolip.errors import UserError, check

MAX_BYTES = 256 << 20
"""Of an image, as for a shard's member."""


def check_regular(path: str | Path) -> None:
    """Check that an untrusted file, if it is there, is regular and not too large: devices never end."""
    is_fine = os.path.isfile(path) and os.path.getsize(path) <= MAX_BYTES
    check(is_fine or not os.path.exists(path), path, f"must be a regular file of at most {MAX_BYTES >> 20} MiB")


def read_text(path: Path) -> str:
    """A user's file in UTF-8, without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(path, f"must be UTF-8 ({error})") from error


def crc32(file: BinaryIO) -> int:
    """Of an open file from its current position on."""
    found = 0
    while block := file.read(1 << 22):
        found = zlib.crc32(block, found)
    return found
