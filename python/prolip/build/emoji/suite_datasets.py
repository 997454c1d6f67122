"""Write a small dataset for every suite of `prolip eval` from the held-out emoji, in the layout that the suite reads.

wds_emoji-groups-DESIGN_test      held-out emoji, labelled with one of nine groups
wds_emoji-subgroups-DESIGN_test   the same images labelled with subgroups; the group is the metadata
wds_emoji-names-DESIGN_test       the same images without duplicates, with all their names
wds_emoji-groups-val_test         validation emoji of all designs: labelled images that can calibrate a model
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
import re
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from prolip.build.emoji.art import DESIGNS, TRAINING_DESIGNS, encode_png
from prolip.build.emoji.attribution import attribution_page
from prolip.build.emoji.captions import CHAINED_TEMPLATES, LEVELS, PLAIN_TEMPLATES
from prolip.build.emoji.config import SuitesConfig
from prolip.build.emoji.samples import TITLES, TRAINED, EmojiSample, find_shards, read_set
from prolip.build.shards import (
    RECORD,
    BuildSummary,
    Json,
    ShardFolder,
    add_sample,
    check_replaceable,
    dump_json,
    read_complete,
    replace_folder,
)

FORMAT = 2
"""Incremented when the same shards give other files: older folders are rebuilt."""
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
TEMPLATES = tuple(template.format("{c}") for template in dict.fromkeys((*PLAIN_TEMPLATES, *CHAINED_TEMPLATES)))
"""For a single phrase two of the demo's templates are equal."""
_HIERARCHY_DESIGN = TRAINING_DESIGNS[0]
"""A training design, so that averages of trained emoji look like its images."""


def build_suites(config: SuitesConfig, out: Path) -> BuildSummary:
    """Write them to `out`, unless they exist already for the same shards."""
    started = time.monotonic()
    names = ["train", TRAINED, *(f"{split}-{design}" for split in ("test", "val") for design in DESIGNS)]
    shards = [path for name in names for path in find_shards(config.data, name)]
    digest = hashlib.sha256(dump_json([FORMAT, TEMPLATES, [path.name for path in shards]]).encode())
    for path in shards:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    record: Json | None = read_complete(out, digest.hexdigest())
    already_built = record is not None
    if record is None:
        check_replaceable(out, OUR_FILES)
        sets = {name: read_set(config.data, name) for name in names}
        with replace_folder(out, OUR_FILES) as folder:
            _write_tasks(folder, sets)
            _write_hierarchies(folder, sets)
            folder.write_text("ATTRIBUTION.md", attribution_page())
            record = folder.finish({"kind": "emoji-suites", "fingerprint": digest.hexdigest()})
    seconds = time.monotonic() - started
    return BuildSummary.from_record(out, record, (), already_built=already_built, seconds=seconds)


def _write_tasks(folder: ShardFolder, sets: Mapping[str, Sequence[EmojiSample]]) -> None:
    labelled = [sample for name, some in sets.items() if not name.startswith(("train", "val")) for sample in some]
    classes = {level: list(dict.fromkeys(one.text(level) for one in labelled)) for level in ("group", "subgroup")}
    _write_classes(folder, "groups-trained", sets[TRAINED], "group", classes)
    validation = [sample for design in DESIGNS for sample in sets[f"val-{design}"]]
    _write_classes(folder, "groups-val", validation, "group", classes)
    table: list[Sequence[object]] = [("key", "name", "folders", "items", "metric", "group_column", "averages")]
    for design, title in TITLES.items():
        samples, distinct = sets[f"test-{design}"], _distinct(sets[f"test-{design}"])
        _write_classes(folder, f"groups-{design}", samples, "group", classes)
        _write_classes(folder, f"subgroups-{design}", samples, "subgroup", classes)
        pairs = {one.key: {"png": one.png, "txt": "\n".join(names).encode()} for one, names in distinct}
        _write_shard(folder, f"names-{design}", pairs)
        for average, kind, number, metric, column in (
            ("groups", "groups", len(samples), "accuracy", "-"),
            ("subgroups", "subgroups", len(samples), "recall", "-"),
            ("worst-group", "subgroups", len(samples), "worst_group", 0),
            ("names", "names", len(distinct), "retrieval", "-"),
        ):
            name, place = f"{average.capitalize()}, {title}", f"wds_emoji-{kind}-{design}_test"
            table.append((f"{average}/{design}", name, place, number, metric, column, f"{average} all"))
    folder.write_text(TASKS, "".join("\t".join(map(str, line)) + "\n" for line in table))


def _distinct(samples: Sequence[EmojiSample]) -> list[tuple[EmojiSample, list[str]]]:
    """Each with all its names: "cook" and "man cook" may have the same image."""
    named: dict[str, tuple[EmojiSample, list[str]]] = {}
    for sample in samples:
        named.setdefault(sample.image_id, (sample, []))[1].append(sample.text("name"))
    return list(named.values())


def _write_classes(
    folder: ShardFolder, name: str, samples: Sequence[EmojiSample], level: str, classes: Mapping[str, list[str]]
) -> None:
    within = folder.path / f"wds_emoji-{name}_test"
    within.mkdir()
    for file, lines in (("classnames.txt", classes[level]), ("zeroshot_classification_templates.txt", TEMPLATES)):
        (within / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    members = {}
    for sample in samples:
        label, group = (classes[one].index(sample.text(one)) for one in (level, "group"))
        buffer = io.BytesIO()
        np.save(buffer, np.array([group], dtype=np.int64))
        texts = {"cls": str(label).encode(), "txt": sample.text("name").encode()}
        members[sample.key] = {"png": sample.png, **texts, "npy": buffer.getvalue()}
    _write_shard(folder, name, members)


def _write_shard(folder: ShardFolder, name: str, samples: Mapping[str, Mapping[str, bytes]]) -> None:
    within = Path(f"wds_emoji-{name}_test/test")
    (folder.path / within).mkdir(parents=True)
    with tarfile.open(folder.path / within / "0.tar", "w") as shard:
        for key, members in samples.items():
            add_sample(shard, key, members)
    folder.write_text(str(within / "nshards.txt"), "1\n")
    folder.samples[f"emoji-{name}"] = folder.shards[(within / "0.tar").as_posix()] = len(samples)


def _write_hierarchies(folder: ShardFolder, sets: Mapping[str, Sequence[EmojiSample]]) -> None:
    """Images of general levels are averages of trained emoji."""
    averaged: dict[str, list[bytes]] = defaultdict(list)
    for sample in sets["train"]:
        if sample.key.startswith(f"{_HIERARCHY_DESIGN}-"):
            for name in _averages(sample):
                averaged[name].append(sample.png)
    own = {
        f"{sample.key}.png": sample
        for sample, _ in _distinct(sets[f"test-{_HIERARCHY_DESIGN}"])
        if averaged.keys() >= set(_averages(sample))  # its subgroup has trained emoji
    }
    images = {name: sample.png for name, sample in own.items()}
    captions = [(n, " => ".join(own[name].text(level) for level in LEVELS), name) for n, name in enumerate(own)]
    chains = [(sample.text("name"), " => ".join((*_averages(sample), name))) for name, sample in own.items()]
    averages = {
        name: average_image(averaged[name]) for name in {name for one in own.values() for name in _averages(one)}
    }
    for place, columns, rows, files in (
        ("hierarcaps", ("id", "captions", "image_url"), captions, images),
        ("hierarimgs", ("caption", "images"), chains, averages | images),
    ):
        within = folder.path / place
        within.mkdir()
        with (within / f"{place}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        for name, data in files.items():
            (within / name).write_bytes(data)
        folder.samples[place] = len(rows)


def _averages(sample: EmojiSample) -> Iterator[str]:
    """Their files above an emoji, from general to specific."""
    yield "all.png"
    for level in ("group", "subgroup"):
        yield f"{level}-{re.sub(r'[^a-z0-9]+', '-', sample.text(level).lower())}.png"


def average_image(encoded: Sequence[bytes]) -> bytes:
    """Of one size, pixel by pixel, as PNG."""
    stacked = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded])
    return encode_png(stacked.mean(axis=0).round().astype(np.uint8))
