"""Read which captions of COCO's test set match which images, from the package `eccv-caption` (extra `eval`)."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from prolip.errors import UserError
from prolip.metrics.coco import CocoTruth, Pairs

_FILES = [
    f"{whose}_{way}.json" for whose in ("original", "cxc", "eccv") for way in ("image_to_caption", "caption_to_image")
]
_ORDER = "coco_test_ids.npy"


def load_truth(folder: Path | None = None) -> CocoTruth:
    """The matching pairs of COCO, CxC and ECCV Caption.

    Args:
        folder: files in the package's layout; None for those of the installed package.

    Raises:
        UserError: the package is not installed, or a file is missing.
    """
    if folder is None:
        spec = find_spec("eccv_caption")
        if spec is None or not spec.submodule_search_locations:
            raise UserError("COCO, CxC and ECCV Caption need eccv-caption: pip install 'prolip[eval]'")
        folder = Path(spec.submodule_search_locations[0]) / "data"
    missing = [name for name in (*_FILES, _ORDER) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} has no {', '.join(missing)}")
    read = [_read(folder / name) for name in _FILES]
    coco, cxc, eccv = (Pairs(*read[first : first + 2]) for first in (0, 2, 4))
    return CocoTruth(coco, cxc, eccv, np.load(folder / _ORDER).tolist())


def _read(path: Path) -> dict[int, list[int]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {int(query): [int(right) for right in rights] for query, rights in content.items()}
