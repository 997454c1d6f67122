"""Write a small dataset for every suite of `prolip eval` from the held-out emoji, in the layout that the suite reads.

wds_emoji-groups-DESIGN_test      held-out emoji, labelled with one of nine groups
wds_emoji-subgroups-DESIGN_test   the same images labelled with subgroups; the group is the metadata
wds_emoji-names-DESIGN_test       the same images without duplicates, with all their names
wds_emoji-groups-trained_test     trained emoji in the held-out design: labelled images that can weight prompts
hierarcaps/                       one image of the first design per row, with captions from "a picture" to its name
hierarimgs/                       one name per row, with images from the average of all trained emoji to its own
emoji-tasks.tsv                   the tasks in these folders, for `prolip eval datacomp --table`
dataset.json, ATTRIBUTION.md      record of the build; credits for the art

The folders have clip_benchmark's layout; the tables have that of HierarCaps and HierarImgs.
"""

import csv
import hashlib
import io
import json
import re
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from prolip.data.build.shards import (
    RECORD,
    BuildSummary,
    ShardFolder,
    add_sample,
    check_replaceable,
    dump_json,
    read_complete,
    replace_folder,
)
from prolip.demo.config import SuitesConfig
from prolip.demo.data.art import DESIGNS, HELD_OUT_DESIGN, TRAINING_DESIGNS, Design, encode_png
from prolip.demo.data.attribution import attribution_page
from prolip.demo.data.captions import LEVELS
from prolip.errors import UserError
from prolip.evaluation.templates import CHAINED_TEMPLATES, PLAIN_TEMPLATES

FORMAT = 1
"""Incremented when the same shards give other files, so that folders of an older format are rebuilt."""
TASKS = "emoji-tasks.tsv"
OUR_FILES = (
    "wds_emoji-*_test/*.txt",
    "wds_emoji-*_test/test/nshards.txt",
    "wds_emoji-*_test/test/0.tar",
    *(f"{name}/*.{suffix}" for name in ("hierarcaps", "hierarimgs") for suffix in ("csv", "png")),
    TASKS,
    RECORD,
    "ATTRIBUTION.md",
)
TRAINED = f"design-{HELD_OUT_DESIGN}"
"""The set of trained emoji in the held-out design: trained names, untrained images."""
TEMPLATES = tuple(template.format("{c}") for template in dict.fromkeys((*PLAIN_TEMPLATES, *CHAINED_TEMPLATES)))
"""The demo's templates. For a single phrase two of them are equal."""
_TITLES: Mapping[Design, str] = {"openmoji": "OpenMoji", "goog": "Google", "twtr": "Twitter"}
_HIERARCHY_DESIGN: Design = TRAINING_DESIGNS[0]
"""The design in the two hierarchies: a training design, so that averages of trained emoji look like its images."""


class EmojiImage(NamedTuple):
    """An image of a base emoji, from the shards."""

    key: str
    png: bytes
    image_id: str
    """Equal for equal images."""
    root: str
    """The caption "a picture"; the other captions are the group, the subgroup and the name in words."""
    group: str
    subgroup: str
    name: str

    @property
    def captions(self) -> tuple[str, str, str, str]:
        """All captions, from general to specific."""
        return self.root, self.group, self.subgroup, self.name


def build_suites(config: SuitesConfig, out: Path) -> BuildSummary:
    """Write the suites' datasets to `out`, unless they exist already for the same shards.

    Raises:
        UserError: a shard is missing or was not made by `build_emoji`, or `out` holds other files.
    """
    started = time.monotonic()
    names = ["train", TRAINED, *(f"test-{design}" for design in DESIGNS)]
    shards = {name: find_shards(config.data, name) for name in names}
    fingerprint = _fingerprint([path for paths in shards.values() for path in paths])
    record: Mapping[str, object] | None = read_complete(out, fingerprint)
    already_built = record is not None
    if record is None:
        check_replaceable(out, OUR_FILES)
        sets = {name: [image for path in paths for image in read_shard(path)] for name, paths in shards.items()}
        with replace_folder(out, OUR_FILES) as folder:
            notes = _write(folder, sets)
            folder.write_text("ATTRIBUTION.md", attribution_page())
            record = folder.finish({"kind": "emoji-suites", "fingerprint": fingerprint, "notes": notes})
    said = record["notes"]
    assert isinstance(said, list), "written above"
    seconds = time.monotonic() - started
    return BuildSummary.from_record(out, record, said, already_built=already_built, seconds=seconds)


def find_shards(data: Path, name: str) -> list[Path]:
    """Find the shards of a set of emoji.

    Raises:
        UserError: there are none.
    """
    found = sorted(data.glob(f"{name}-*.tar"))
    if not found:
        raise UserError(f"data: {data} has no shard {name}-*.tar: build it with `prolip data build emoji`")
    return found


def read_shard(path: Path) -> Iterator[EmojiImage]:
    """Yield the base emoji of a shard in order, without skin-tone variants and mirrored copies.

    Raises:
        UserError: it is not a shard of emoji; the message names it.
    """
    try:
        with tarfile.open(path) as archive:
            for key, members in groupby(archive, key=lambda member: member.name.partition(".")[0]):
                data = {member.name.partition(".")[2]: _bytes(archive, member) for member in members}
                record = json.loads(data["json"])
                if not (record["skin_tone"] or record["mirrored"]):
                    captions = (str(record["captions"][level][0]) for level in LEVELS)
                    yield EmojiImage(key, data["png"], str(record["picture"]), *captions)
    except (tarfile.TarError, EOFError, KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"data: {path} is not a shard of emoji: {type(error).__name__} {error}") from error


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a plain file"
    return file.read()


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def _write(folder: ShardFolder, sets: Mapping[str, Sequence[EmojiImage]]) -> list[str]:
    """Write everything but the attribution and the record; returns notes on what was skipped."""
    labelled = [image for name, images in sets.items() if name != "train" for image in images]
    groups, subgroups = (
        list(dict.fromkeys(getattr(image, level) for image in labelled)) for level in ("group", "subgroup")
    )
    _write_classes(folder, "groups-trained", sets[TRAINED], groups, "group")
    tasks = []
    for design in DESIGNS:
        images = sets[f"test-{design}"]
        _write_classes(folder, f"groups-{design}", images, groups, "group")
        _write_classes(folder, f"subgroups-{design}", images, subgroups, "subgroup", metadata=groups)
        named = _with_names(images)
        pairs = {image.key: {"png": image.png, "txt": "\n".join(names).encode()} for image, names in named}
        _write_shard(folder, f"names-{design}", pairs)
        tasks += _tasks(design, len(images), len(named))
    columns = ("key", "name", "folders", "items", "metric", "group_column", "averages")
    folder.write_text(TASKS, "".join("\t".join(map(str, line)) + "\n" for line in (columns, *tasks)))
    distinct = [image for image, _ in _with_names(sets[f"test-{_HIERARCHY_DESIGN}"])]
    _write_hierarcaps(folder, distinct)
    trained = [image for image in sets["train"] if image.key.startswith(f"{_HIERARCHY_DESIGN}-")]
    skipped = _write_hierarimgs(folder, distinct, trained)
    return [f"{skipped} emoji are not in hierarimgs: their subgroup has no trained emoji"] if skipped else []


def _tasks(design: Design, num_images: int, num_distinct: int) -> list[tuple[object, ...]]:
    """Return the rows of the table of tasks."""
    title = _TITLES[design]
    groups, subgroups, names = (f"wds_emoji-{kind}-{design}_test" for kind in ("groups", "subgroups", "names"))
    return [
        (f"groups/{design}", f"Groups, {title}", groups, num_images, "accuracy", "-", "groups all"),
        (f"subgroups/{design}", f"Subgroups, {title}", subgroups, num_images, "recall", "-", "subgroups all"),
        (
            f"subgroups/{design}-by-group",
            f"Subgroups by group, {title}",
            subgroups,
            num_images,
            "worst_group",
            0,
            "worst-group all",
        ),
        (f"names/{design}", f"Names, {title}", names, num_distinct, "retrieval", "-", "names all"),
    ]


def _with_names(images: Sequence[EmojiImage]) -> list[tuple[EmojiImage, list[str]]]:
    """Return distinct images with all their names: "cook" and "man cook" may have the same image."""
    named: dict[str, tuple[EmojiImage, list[str]]] = {}
    for image in images:
        named.setdefault(image.image_id, (image, []))[1].append(image.name)
    return list(named.values())


def _write_classes(
    folder: ShardFolder,
    name: str,
    images: Sequence[EmojiImage],
    classes: Sequence[str],
    level: str,
    metadata: Sequence[str] | None = None,
) -> None:
    """Write a classification task. With `metadata`, samples have the index of their group in it."""
    within = folder.path / f"wds_emoji-{name}_test"
    within.mkdir()
    for file, lines in (("classnames.txt", classes), ("zeroshot_classification_templates.txt", TEMPLATES)):
        (within / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    samples: dict[str, dict[str, bytes]] = {}
    for image in images:
        label = classes.index(getattr(image, level))
        samples[image.key] = {"png": image.png, "cls": str(label).encode(), "txt": image.name.encode()}
        if metadata is not None:
            buffer = io.BytesIO()
            np.save(buffer, np.array([metadata.index(image.group)], dtype=np.int64))
            samples[image.key]["npy"] = buffer.getvalue()
    _write_shard(folder, name, samples)


def _write_shard(folder: ShardFolder, name: str, samples: Mapping[str, Mapping[str, bytes]]) -> None:
    """Write one shard; its bytes depend only on the samples: by key, their members by extension."""
    within = Path(f"wds_emoji-{name}_test") / "test"
    path = folder.path / within
    path.mkdir(parents=True)
    with tarfile.open(path / "0.tar", "w") as shard:
        for key, members in samples.items():
            add_sample(shard, key, members)
    (path / "nshards.txt").write_text("1\n", encoding="utf-8")
    folder.samples[f"emoji-{name}"] = folder.shards[(within / "0.tar").as_posix()] = len(samples)


def _write_hierarcaps(folder: ShardFolder, images: Sequence[EmojiImage]) -> None:
    """Write the images and a table of their captions."""
    files = {f"{image.key}.png": image.png for image in images}
    rows = [(place, " => ".join(image.captions), f"{image.key}.png") for place, image in enumerate(images)]
    _write_table(folder, "hierarcaps", ("id", "captions", "image_url"), rows, files)


def _write_hierarimgs(folder: ShardFolder, images: Sequence[EmojiImage], trained: Sequence[EmojiImage]) -> int:
    """Write the images, averages of trained images, and a table of both.

    Returns:
        The number of images that are skipped, because their subgroup has no trained emoji.
    """
    members: dict[str, list[bytes]] = defaultdict(list)
    for image in trained:
        for name in _averages(image):
            members[name].append(image.png)
    kept = [image for image in images if all(name in members for name in _averages(image))]
    names = dict.fromkeys(name for image in kept for name in _averages(image))
    files = {name: average_image(members[name]) for name in names}
    files |= {f"{image.key}.png": image.png for image in kept}
    rows = [(image.name, " => ".join((*_averages(image), f"{image.key}.png"))) for image in kept]
    _write_table(folder, "hierarimgs", ("caption", "images"), rows, files)
    return len(images) - len(kept)


def _averages(image: EmojiImage) -> tuple[str, str, str]:
    """Return the file names of the average images above an emoji, from general to specific."""
    group, subgroup = (re.sub(r"[^a-z0-9]+", "-", text.lower()) for text in (image.group, image.subgroup))
    return "all.png", f"group-{group}.png", f"subgroup-{subgroup}.png"


def average_image(encoded: Sequence[bytes]) -> bytes:
    """Average images of one size, pixel by pixel, as PNG."""
    stacked = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded])
    return encode_png(stacked.mean(axis=0).round().astype(np.uint8))


def _write_table(
    folder: ShardFolder,
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    files: Mapping[str, bytes],
) -> None:
    within = folder.path / name
    within.mkdir()
    with (within / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    for file_name, data in files.items():
        (within / file_name).write_bytes(data)
    folder.samples[name] = len(rows)


def _fingerprint(shards: Sequence[Path]) -> str:
    """Hash the bytes of the shards, the templates and the format."""
    digest = hashlib.sha256(dump_json([FORMAT, TEMPLATES, [path.name for path in shards]]).encode())
    for path in shards:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
