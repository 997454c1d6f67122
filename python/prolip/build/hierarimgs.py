"""Write the table of HierarImgs from COCO's annotations."""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import msgspec

from prolip.errors import UserError, check
from prolip.store.atomic_writes import write_atomic


@dataclass
class _Image:
    id: int
    file_name: str


@dataclass
class _Annotation:
    image_id: int
    category_id: int = 0
    caption: str = ""


@dataclass
class _Coco:
    images: list[_Image]
    annotations: list[_Annotation]


def build_hierarimgs(*, instances: Path, captions: Path, out: Path) -> str:
    """Write the table that `prolip eval hierarimgs` reads: up to 1,000 captions, each with images that have one, two,
    three and all of the object categories of its own image. These hierarchies are ours, not the paper's.

    Args:
        instances: such as annotations/instances_val2014.json.
        captions: such as annotations/captions_val2014.json.
        out: a .csv in the folder of the images or in one above it.

    Returns:
        A line to print.

    Raises:
        UserError: annotations cannot be read, or no image has a hierarchy.
        OSError: a file of annotations is missing, or `out` cannot be written.
    """
    coco = _read(instances)
    texts = {one.image_id: one.caption.strip() for one in _read(captions).annotations}
    categories: dict[int, set[int]] = defaultdict(set)
    for one in coco.annotations:
        categories[one.image_id].add(one.category_id)
    alike: dict[frozenset[int], list[str]] = defaultdict(list)
    for image in coco.images:
        alike[frozenset(categories[image.id])].append(image.file_name)
    draw, rows = random.Random(0), []
    for image in coco.images:
        own = sorted(categories[image.id])
        draw.shuffle(own)
        nested = [frozenset(own[:count]) for count in (1, 2, 3)]
        if len(own) > 3 and image.id in texts and alike.keys() >= {*nested}:
            names = [*(draw.choice(alike[some]) for some in nested), image.file_name]
            rows.append((texts[image.id], " => ".join(names)))
    check(rows, "instances", "must have captioned images with nested categories", instances)
    rows, table = draw.sample(rows, min(len(rows), 1000)), io.StringIO()  # HierarCaps has 1,000
    csv.writer(table).writerows([("caption", "images"), *rows])
    write_atomic(out, table.getvalue())
    return f"{out}: {len(rows)} hierarchies of four images"


def _read(path: Path) -> _Coco:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Coco)
    except msgspec.DecodeError as error:
        raise UserError(path, f"must have COCO's annotations ({error})") from error
