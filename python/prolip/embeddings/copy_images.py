"""Copy the images of a folder that a ranking keeps, each with the caption beside it (`prolip data filter`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path, PurePath

from prolip.data import DataError
from prolip.errors import UserError
from prolip.files import atomic_file


def copy_images(folder: Path, names: Iterable[str], target: Path) -> tuple[int, int]:
    """Copy images and the .txt beside each, below `target` as below `folder`; files that are there already stay.

    Args:
        folder: a folder of images.
        names: paths of images below it.
        target: the folder of the copies.

    Returns:
        How many images were copied now, and the bytes of all files.

    Raises:
        UserError: a name leads out of the folder.
        DataError: an image is missing.
    """
    copied = size = 0
    for name in sorted(names):
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"ranking: the key {name} of {folder} leads out of that folder")
        if not (folder / path).is_file():
            raise DataError(f"{folder}: has no image {name}, which the ranking keeps: has the folder changed?")
        copied += not (target / path).is_file()
        for file in (path, path.with_suffix(".txt")):
            if not (folder / file).is_file():
                continue
            if not (target / file).is_file():
                with atomic_file(target / file, (folder / file).stat().st_size) as temporary:
                    shutil.copyfile(folder / file, temporary)
            size += (target / file).stat().st_size
    return copied, size
