"""The held-out emoji in the layouts that the suites of `prolip eval` read: a small data set for each, from no download.

wds_emoji-groups-DESIGN_test      held-out emoji, one of nine groups each
wds_emoji-subgroups-DESIGN_test   the same pictures by subgroup; their group is the metadata
wds_emoji-names-DESIGN_test       the same pictures, equal ones once, with every name that they have
wds_emoji-groups-trained_test     trained emoji in the held-out design: labelled pictures that may weigh prompts
hierarcaps/                       a picture of the first design a row, and its captions from "a picture" to its name
hierarimgs/                       a name a row, and pictures from the average of all trained emoji to its own
emoji-tasks.tsv                   the tasks that the folders are, for `prolip eval datacomp --table`
dataset.json, ATTRIBUTION.md      what was made of what; whose art it is

The folders are of clip_benchmark's layout, the tables HierarCaps' and HierarImgs'.
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
from webdataset import TarWriter

from prolip.data.build.shards import (
    RECORD,
    BuildSummary,
    ShardFolder,
    check_replaceable,
    dump_json,
    read_complete,
    replace_folder,
)
from prolip.demo.config import SuitesConfig
from prolip.demo.data.art import DESIGNS, HELD_OUT_DESIGN, TRAINING_DESIGNS, Design, encode_png
from prolip.demo.data.attribution import attribution_page
from prolip.demo.data.captions import LEVELS
from prolip.suites.templates import CHAINED_TEMPLATES, PLAIN_TEMPLATES

FORMAT = 1
"""Raised when the same shards give other files: folders of an older format are built again."""
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
TEMPLATES = tuple(template.format("{c}") for template in dict.fromkeys((*PLAIN_TEMPLATES, *CHAINED_TEMPLATES)))
"""Those of the demo; of a single phrase two are alike."""
_TITLES: Mapping[Design, str] = {"openmoji": "OpenMoji", "goog": "Google", "twtr": "Twitter"}
_WALKED: Design = TRAINING_DESIGNS[0]
"""Whose pictures the two hierarchies have: a trained design, so that averages of trained emoji look like it."""


class Drawn(NamedTuple):
    """A picture of a base emoji, from the shards."""

    key: str
    png: bytes
    picture: str
    """The id that equal pictures share."""
    captions: tuple[str, ...]
    """"a picture", its group, its subgroup and its name."""

    @property
    def group(self) -> str:
        """As captions say it."""
        return self.captions[1]

    @property
    def subgroup(self) -> str:
        """As captions say it."""
        return self.captions[2]

    @property
    def name(self) -> str:
        """As captions say it."""
        return self.captions[3]


def build_suites(config: SuitesConfig, out: Path) -> BuildSummary:
    """Builds the suites' data in `out`; does nothing if they are already there, made of the same shards.

    Raises:
        ValueError: a shard is missing or is none of the emoji builder's, or `out` holds what this one does not write.
    """
    started = time.monotonic()
    names = ["train", TRAINED, *(f"test-{design}" for design in DESIGNS)]
    shards = {name: find_shards(config.data, name) for name in names}
    fingerprint = _fingerprint([path for paths in shards.values() for path in paths])
    record = read_complete(out, fingerprint)
    if record is not None:
        return _summary(out, record, already_built=True, started=started)
    check_replaceable(out, OUR_FILES)
    sets = {name: [one for path in paths for one in read_shard(path)] for name, paths in shards.items()}
    with replace_folder(out, OUR_FILES) as folder:
        notes = _write(folder, sets)
        folder.write_text("ATTRIBUTION.md", attribution_page())
        folder.finish({"kind": "emoji-suites", "fingerprint": fingerprint, "notes": notes})
    record = read_complete(out, fingerprint)
    assert record is not None, "it was just written"
    return _summary(out, record, already_built=False, started=started)


def find_shards(data: Path, name: str) -> list[Path]:
    """The shards of a set of emoji.

    Raises:
        ValueError: there is none.
    """
    found = sorted(data.glob(f"{name}-*.tar"))
    if not found:
        raise ValueError(f"data: {data} has no shard {name}-*.tar: build it with `prolip data build emoji`")
    return found


def read_shard(path: Path) -> Iterator[Drawn]:
    """The base emoji of a shard (no skin-tone variants), in its order.

    Raises:
        ValueError: it is no shard of emoji; the message names it.
    """
    try:
        with tarfile.open(path) as archive:
            for key, members in groupby(archive, key=lambda member: member.name.partition(".")[0]):
                data = {member.name.partition(".")[2]: _bytes(archive, member) for member in members}
                record = json.loads(data["json"])
                if not record["skin_tone"]:
                    captions = tuple(str(record["captions"][level][0]) for level in LEVELS)
                    yield Drawn(key, data["png"], str(record["picture"]), captions)
    except (tarfile.TarError, EOFError, KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"data: {path} is no shard of emoji: {type(error).__name__} {error}") from error


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a plain file"
    return file.read()


# ---------------------------------------------------------------------------------------------------------------------
# What is written
# ---------------------------------------------------------------------------------------------------------------------


def _write(folder: ShardFolder, sets: Mapping[str, Sequence[Drawn]]) -> list[str]:
    """Everything but the attribution and the record; sentences about what was left out."""
    known = [one for name, own in sets.items() if name != "train" for one in own]
    groups, subgroups = (list(dict.fromkeys(getattr(one, level) for one in known)) for level in ("group", "subgroup"))
    _write_classes(folder, "groups-trained", sets[TRAINED], groups, "group")
    tasks = []
    for design in DESIGNS:
        own = sets[f"test-{design}"]
        _write_classes(folder, f"groups-{design}", own, groups, "group")
        _write_classes(folder, f"subgroups-{design}", own, subgroups, "subgroup", metadata=groups)
        named = _names(own)
        pairs: list[dict[str, str | bytes]] = [
            {"__key__": one.key, "png": one.png, "txt": "\n".join(names)} for one, names in named
        ]
        _write_shard(folder, f"names-{design}", pairs)
        tasks += _tasks(design, len(own), len(named))
    columns = ("key", "name", "folders", "items", "metric", "group_column", "averages")
    folder.write_text(TASKS, "".join("\t".join(map(str, line)) + "\n" for line in (columns, *tasks)))
    walked = [one for one, _ in _names(sets[f"test-{_WALKED}"])]
    _write_hierarcaps(folder, walked)
    trained = [one for one in sets["train"] if one.key.startswith(f"{_WALKED}-")]
    left_out = _write_hierarimgs(folder, walked, trained)
    return [f"{left_out} emoji are not in hierarimgs: their subgroup has no trained emoji"] if left_out else []


def _tasks(design: Design, num_pictures: int, num_distinct: int) -> list[tuple[object, ...]]:
    """Lines of the table, with its columns."""
    title = _TITLES[design]
    groups, subgroups, names = (f"wds_emoji-{kind}-{design}_test" for kind in ("groups", "subgroups", "names"))
    return [
        (f"groups/{design}", f"Groups, {title}", groups, num_pictures, "accuracy", "-", "groups all"),
        (f"subgroups/{design}", f"Subgroups, {title}", subgroups, num_pictures, "recall", "-", "subgroups all"),
        (
            f"subgroups/{design}-by-group",
            f"Subgroups by group, {title}",
            subgroups,
            num_pictures,
            "worst_group",
            0,
            "worst-group all",
        ),
        (f"names/{design}", f"Names, {title}", names, num_distinct, "retrieval", "-", "names all"),
    ]


def _names(drawn: Sequence[Drawn]) -> list[tuple[Drawn, list[str]]]:
    """Distinct pictures, each with every name that it has: "cook" and "man cook" may be one picture."""
    named: dict[str, tuple[Drawn, list[str]]] = {}
    for one in drawn:
        named.setdefault(one.picture, (one, []))[1].append(one.name)
    return list(named.values())


def _write_classes(
    folder: ShardFolder,
    name: str,
    drawn: Sequence[Drawn],
    classes: Sequence[str],
    level: str,
    metadata: Sequence[str] | None = None,
) -> None:
    """A classification task; with `metadata`, the place of each picture's group among those."""
    within = folder.path / f"wds_emoji-{name}_test"
    within.mkdir()
    for file, lines in (("classnames.txt", classes), ("zeroshot_classification_templates.txt", TEMPLATES)):
        (within / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    samples: list[dict[str, str | bytes]] = []
    for one in drawn:
        label = classes.index(getattr(one, level))
        samples.append({"__key__": one.key, "png": one.png, "cls": str(label), "txt": one.name})
        if metadata is not None:
            buffer = io.BytesIO()
            np.save(buffer, np.array([metadata.index(one.group)], dtype=np.int64))
            samples[-1]["npy"] = buffer.getvalue()
    _write_shard(folder, name, samples)


def _write_shard(folder: ShardFolder, name: str, samples: Sequence[Mapping[str, str | bytes]]) -> None:
    """One shard, whose bytes depend on the samples alone; each has its key as `__key__`, and members by extension."""
    within = Path(f"wds_emoji-{name}_test") / "test"
    path = folder.path / within
    path.mkdir(parents=True)
    with TarWriter(str(path / "0.tar"), encoder=False, mtime=0, user="prolip", group="prolip") as writer:
        for sample in samples:
            members = {name: data.encode() if isinstance(data, str) else data for name, data in sample.items()}
            writer.write({**members, "__key__": sample["__key__"]})
    (path / "nshards.txt").write_text("1\n", encoding="utf-8")
    folder.samples[f"emoji-{name}"] = folder.shards[(within / "0.tar").as_posix()] = len(samples)


def _write_hierarcaps(folder: ShardFolder, drawn: Sequence[Drawn]) -> None:
    """Pictures, and the table of their captions."""
    pictures = {f"{one.key}.png": one.png for one in drawn}
    rows = [(place, " => ".join(one.captions), f"{one.key}.png") for place, one in enumerate(drawn)]
    _write_table(folder, "hierarcaps", ("id", "captions", "image_url"), rows, pictures)


def _write_hierarimgs(folder: ShardFolder, drawn: Sequence[Drawn], trained: Sequence[Drawn]) -> int:
    """Pictures, averages of trained ones, and the table of both; how many had no trained emoji in their subgroup."""
    alike: dict[str, list[bytes]] = defaultdict(list)
    for one in trained:
        for name in _averages(one):
            alike[name].append(one.png)
    kept = [one for one in drawn if all(name in alike for name in _averages(one))]
    pictures = {name: average_picture(alike[name]) for name in dict.fromkeys(n for one in kept for n in _averages(one))}
    pictures |= {f"{one.key}.png": one.png for one in kept}
    rows = [(one.name, " => ".join((*_averages(one), f"{one.key}.png"))) for one in kept]
    _write_table(folder, "hierarimgs", ("caption", "images"), rows, pictures)
    return len(drawn) - len(kept)


def _averages(one: Drawn) -> tuple[str, str, str]:
    """Names of the average pictures that an emoji lies below, from general to specific."""
    group, subgroup = (re.sub(r"[^a-z0-9]+", "-", text.lower()) for text in (one.group, one.subgroup))
    return "all.png", f"group-{group}.png", f"subgroup-{subgroup}.png"


def average_picture(encoded: Sequence[bytes]) -> bytes:
    """The mean of pictures of one size, pixel by pixel, as PNG."""
    stacked = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded])
    return encode_png(stacked.mean(axis=0).round().astype(np.uint8))


def _write_table(
    folder: ShardFolder,
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    pictures: Mapping[str, bytes],
) -> None:
    within = folder.path / name
    within.mkdir()
    with (within / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    for picture, data in pictures.items():
        (within / picture).write_bytes(data)
    folder.samples[name] = len(rows)


def _fingerprint(shards: Sequence[Path]) -> str:
    """Changes with every byte of the shards, with the templates and with the format."""
    digest = hashlib.sha256(dump_json([FORMAT, TEMPLATES, [path.name for path in shards]]).encode())
    for path in shards:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _summary(out: Path, record: Mapping[str, object], *, already_built: bool, started: float) -> BuildSummary:
    samples, shards, notes = record["samples"], record["shards"], record["notes"]
    assert isinstance(samples, dict), "written by finish"
    assert isinstance(shards, dict), "written by finish"
    assert isinstance(notes, list), "written by build_suites"
    return BuildSummary(
        out=out,
        already_built=already_built,
        samples=samples,
        shards=shards,
        notes=tuple(notes),
        seconds=time.monotonic() - started,
    )
