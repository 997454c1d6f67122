"""Faulty data sets: each error names its cause and file, and the others are evaluated."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.datacomp_sets import (
    TASKS,
    array,
    write_open_clip,
    write_packed,
    write_task,
)
from tests.support.shards import read_tar, write_tar

from prolip.cli import main


def within(data: Path, key: str) -> Path:
    folder = data / TASKS[key].folders[0]
    return folder / "test" if (folder / "test").is_dir() else folder


def rewrite(shard: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Changes the members of a shard; None leaves one out."""
    changed = [(name, change(name, content)) for name, content in read_tar(shard)]
    write_tar(shard, [(name, content) for name, content in changed if content is not None])


def of_kind(extension: str, content: bytes | None) -> Callable[[str, bytes], bytes | None]:
    return lambda name, held: content if name.endswith(extension) else held


def packed_array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


def no_shards(data: Path, key: str) -> None:
    for path in within(data, key).glob("*.tar"):
        path.unlink()
    (within(data, key) / "nshards.txt").unlink()


def table_without(data: Path, key: str) -> None:
    """In place of shards a table that lacks the captions."""
    folder = data / TASKS[key].folders[0]
    shutil.rmtree(folder)
    write_packed(folder, [["filename", "split"], ["0.jpg", "test"]])


def cut_zip(data: Path, key: str) -> None:
    path = data / TASKS[key].folders[0] / "winogavil_images.zip"
    path.write_bytes(path.read_bytes()[:3000])


def cut(data: Path, key: str, shard: str, size: int) -> None:
    path = within(data, key) / shard
    path.write_bytes(path.read_bytes()[:size])


def say(data: Path, key: str, name: str, text: str) -> None:
    (data / TASKS[key].folders[0] / name).write_text(text)


FLICKR, COCO = (key for key in TASKS if key.startswith("retrieval/"))
CLASSES, PROMPTS = "classnames.txt", "zeroshot_classification_templates.txt"
FAULTS: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "gtsrb": (lambda d, k: (within(d, k) / "nshards.txt").write_text("many"), "nshards.txt is 'many': it must be the"),
    "sun397": (lambda d, k: (within(d, k) / "nshards.txt").write_text("3"), "counts 3 shards: 2.tar is missing"),
    "mnist": (lambda d, k: cut(d, k, "0.tar", 0), "0.tar"),
    "voc2007": (lambda d, k: cut(d, k, "0.tar", 2000), "0.tar"),
    "vtab/svhn": (lambda d, k: cut(d, k, "1.tar", 5000), "1.tar"),
    "food101": (no_shards, "has no shard"),
    "stl10": (lambda d, k: (d / TASKS[k].folders[0] / CLASSES).unlink(), "has no class names or no templates"),
    "cars": (lambda d, k: say(d, k, CLASSES, "a\n\nb\n"), "classnames.txt: line 2 is empty"),
    "vtab/pets": (lambda d, k: say(d, k, PROMPTS, "a picture\n"), "line 1 has no {c} for the class: 'a picture'"),
    "country211": (
        lambda d, k: say(d, k, CLASSES, "one\n"),
        "it must be from 0 to 0",
    ),
    "renderedsst2": (
        lambda d, k: rewrite(within(d, k) / "1.tar", of_kind(".cls", b"-1")),
        "is b'-1': it must be from 0 to",
    ),
    "vtab/dtd": (lambda d, k: rewrite(within(d, k) / "0.tar", of_kind(".cls", None)), "has no .cls"),
    "vtab/flowers": (
        lambda d, k: rewrite(within(d, k) / "0.tar", lambda n, c: c if n.endswith(".cls") else b"none"),
        "cannot be",
    ),
    "wilds/fmow": (lambda d, k: rewrite(within(d, k) / "0.tar", of_kind(".npy", None)), "has no .npy"),
    "fairness/geode": (
        lambda d, k: rewrite(within(d, k) / "0.tar", of_kind(".npy", packed_array())),
        "the .npy of sample s0000000 cannot be read",
    ),
    "fairness/dollar_street": (
        lambda d, k: rewrite(within(d, k) / "1.tar", of_kind(".npy", array([-1, 0, 0]))),
        "a number below 0",
    ),
    "fairness/utkface": (
        lambda d, k: [rewrite(within(d, k) / f"{n}.tar", of_kind(".npy", array([1, 0]))) for n in range(2)],
        "2 columns: 4 are needed",
    ),
    "fairness/fairface": (lambda d, k: say(d, k, CLASSES, "race:x\nage:y\n"), "no templates of gender"),
    "misc/winogavil": (cut_zip, "winogavil_images.zip: File is not a zip file"),
    FLICKR: (table_without, "test.csv has no column raw"),
    COCO: (lambda d, k: rewrite(within(d, k) / "1.tar", of_kind(".txt", b"\n")), "has no caption"),
}
WHOLE = "vtab/eurosat"


@pytest.mark.parametrize("preprocess", [{"size": 16}, {"size": 16, "resize_mode": "squash"}], ids=["loader", "pillow"])
def test_each_damaged_set_is_noted_with_its_file_and_the_others_run(preprocess: dict[str, Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    for key in (*FAULTS, WHOLE):
        write_task(data, TASKS[key], count=8)
    for key, (damage, _) in FAULTS.items():
        damage(data, key)
    source = write_open_clip(tmp_path / "model", preprocess)
    words = ["--checkpoint", source, "--data", str(data), "--out", str(tmp_path / "out"), "--num_resamples", "0"]
    assert main(["eval", "datacomp", *words, "--tasks", *FAULTS, WHOLE]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["task"] for row in results["figures"]} == {"Average", "EuroSAT"}
    (notes,) = results["notes"].values()
    for key, (_, said) in FAULTS.items():
        (note,) = [note for note in notes if note.startswith(f"{TASKS[key].name}: ")]
        assert said in note
        assert str(data / TASKS[key].folders[0]) in note, "a stranger finds the file"
    assert not list((tmp_path / "out").rglob("*.tmp"))
