"""Write shards from a folder of images."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from prolip.build.config import FolderConfig
from prolip.build.images import Candidate, write_images
from prolip.build.shards import BuildSummary
from prolip.data.class_names import class_text
from prolip.errors import UserError, check, sentence
from prolip.images.files import find_images
from prolip.store.file_contents import check_regular, read_text

_SPLITS = {"train", "val", "valid", "validation", "test"}
_PRINTED = 20
"""Most classes in the summary."""
_CHOICES = (
    "Choose --captions class (one folder per class), text (image.jpg beside image.txt), name (file names, or the part "
    "that --name_pattern finds) or none; `prolip data build csv` reads captions from a table"
)


def build_folder(config: FolderConfig, out: Path) -> BuildSummary:
    """Write shards to `out` from all images below `config.images`; hidden files and folders are skipped.

    Raises:
        UserError: `images` has no usable image or too many bad ones; most of its class folders are named like splits;
            or `out` holds other files.
    """
    check(config.images.is_dir(), "images", "must be a folder", config.images)
    candidates = [candidate_of(path, config) for path in find_images(config.images)]
    if candidates and all(candidate.problem for candidate in candidates):
        raise UserError(
            "images",
            f"no image of {config.images} has a caption for captions = {config.captions} ({candidates[0].name}: "
            f"{candidates[0].problem}). {_CHOICES}",
        )
    classes = Counter(str(image.record["class"]) for image in candidates if "class" in image.record)
    splits = [name for name in classes if name.lower() in _SPLITS]
    if 2 * len(splits) > len(classes):  # a vehicle may be a train
        raise UserError(
            "images",
            f"must hold one folder per class, but {', '.join(splits)} look like splits; build each by "
            f"itself, such as --images {config.images / splits[0]}",
            config.images,
        )
    description = {
        "kind": "folder",
        "captions": config.captions,
        "classes": {name: class_text(name) for name in classes},
    }
    summary = write_images(candidates, config, out, description, f"images: {config.images}")
    lines = [f"{count:>7}  {name}" for name, count in classes.items()]
    if len(lines) > _PRINTED:
        lines[_PRINTED:] = [f"    and {len(lines) - _PRINTED} more"]
    if lines:
        lines.insert(0, f"images of {len(classes)} classes:")
    return replace(summary, notes=(*lines, *summary.notes))


def _name(path: Path, source: Path) -> str:
    # JSON cannot hold a name that is not UTF-8.
    return str(path.relative_to(source)).encode(errors="surrogateescape").decode(errors="replace")


def candidate_of(path: Path, config: FolderConfig) -> Candidate:
    """An image below `config.images` with its caption and record, or why it has none."""
    name = _name(path, config.images)
    record: dict[str, object] = {"path": name}
    captions, problem = [], ""
    if config.captions == "class":
        folder, slash, _ = name.partition("/")
        if slash:
            text = class_text(folder)
            captions = [template.format(text) for template in config.templates]
            record |= {"class": folder, "class_text": text}
        else:
            problem = "it is not in a class folder"
    elif config.captions == "text":
        beside = path.with_suffix(".txt")
        try:
            check_regular(beside)
            captions = [read_text(beside).strip()]
            problem = "" if captions[0] else f"{beside.name} is empty"
        except FileNotFoundError:
            problem = f"no {beside.name} beside it"
        except (OSError, UserError) as error:
            problem = sentence(error)
    elif config.captions == "name":
        stem = _name(path.with_suffix(""), path.parent)
        found = re.search(config.name_pattern or "(.*)", stem)
        captions = [class_text(found[1] or "") if found else ""]
        if not captions[0]:
            problem = f"name_pattern {config.name_pattern!r} finds no caption in {stem!r}"
    return Candidate(name, path, name, captions, record, problem)
