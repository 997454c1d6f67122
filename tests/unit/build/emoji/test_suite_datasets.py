"""Suites' data sets built from emoji shards, in the published layouts."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.emoji_build import SMALL, made_up_emoji
from tests.support.shards import read_samples, write_tar

from prolip.build.emoji.build import build_emoji
from prolip.build.emoji.config import SuitesConfig
from prolip.build.emoji.suite_datasets import build_suites
from prolip.cli import main
from prolip.errors import DataError, UserError
from prolip.evaluation.datacomp import read_tasks

Record = dict[str, Any]
Read = Callable[..., list[Record]]
DESIGNS = ("openmoji", "goog", "twtr")


def members(path):
    """Samples by extension, with their key."""
    return [{"key": key.encode(), **sample} for key, sample in read_samples(path).items()]


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Emoji shards; three held-out emoji have one image in the first design."""
    root = tmp_path_factory.mktemp("emoji")
    (root / "art").mkdir()
    with made_up_emoji(root / "art"):
        build_emoji(replace(SMALL, seed=4), root / "emoji")  # which holds those out
    return root / "emoji"


@pytest.fixture(scope="module")
def suites(emoji):
    build_suites(SuitesConfig(data=emoji), emoji.parent / "suites")
    return emoji.parent / "suites"


def drawn(emoji, read_back, name):
    samples = read_back(emoji, f"{name}-*.tar")
    return [one for one in samples if not (one["json"]["skin_tone"] or one["json"]["mirrored"])]


def test_classes_are_in_clip_benchmarks_layout(emoji, suites, read_back):
    for design in DESIGNS:
        records = drawn(emoji, read_back, f"test-{design}")
        for kind, field in (("groups", "group_text"), ("subgroups", "subgroup_text")):
            folder = suites / f"wds_emoji-{kind}-{design}_test"
            names = lines(folder / "classnames.txt")
            assert sorted(names) == sorted({one["json"][field] for one in drawn(emoji, read_back, "design-twtr")})
            assert lines(folder / "zeroshot_classification_templates.txt") == [
                "{c}",
                "a picture of {c}",
                "an emoji of {c}",
                "a picture: {c}",
                "{c}, emoji",
            ]
            assert (folder / "test" / "nshards.txt").read_text() == "1\n"
            samples = members(folder / "test" / "0.tar")
            assert [one["key"].decode() for one in samples] == [one["__key__"] for one in records]
            assert [one["png"] for one in samples] == [one["png"] for one in records]
            assert [names[int(one["cls"])] for one in samples] == [one["json"][field] for one in records]
            assert [one["txt"].decode() for one in samples] == [one["json"]["name"] for one in records]
        groups = lines(suites / f"wds_emoji-groups-{design}_test" / "classnames.txt")
        metadata = [np.load(io.BytesIO(one["npy"])) for one in samples]
        assert {(row.shape, row.dtype) for row in metadata} == {((1,), np.dtype(np.int64))}
        assert [groups[row[0]] for row in metadata] == [one["json"]["group_text"] for one in records]


def test_labelled_images_are_of_trained_emoji(emoji, suites, read_back):
    samples = members(suites / "wds_emoji-groups-trained_test" / "test" / "0.tar")
    trained = {one["json"]["name"] for one in drawn(emoji, read_back, "train")}
    assert samples
    assert {one["txt"].decode() for one in samples} <= trained
    for design in DESIGNS:
        tested = members(suites / f"wds_emoji-groups-{design}_test" / "test" / "0.tar")
        assert not trained & {one["txt"].decode() for one in tested}


def test_equal_images_appear_once_with_all_their_names(emoji, suites, read_back):
    shared = 0
    for design in DESIGNS:
        expected = {}
        for one in drawn(emoji, read_back, f"test-{design}"):
            expected.setdefault(one["json"]["picture"], []).append(one["json"]["name"])
        samples = members(suites / f"wds_emoji-names-{design}_test" / "test" / "0.tar")
        assert [one["txt"].decode().split("\n") for one in samples] == list(expected.values())
        assert len({one["png"] for one in samples}) == len(samples)
        shared += sum(len(names) > 1 for names in expected.values())
    assert shared == 1


def test_hierarcaps_is_written_as_a_table_and_images(emoji, suites, read_back):
    with (suites / "hierarcaps" / "hierarcaps.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    records = {f"{one['__key__']}.png": one for one in drawn(emoji, read_back, "test-openmoji")}
    assert len(rows) == len({one["png"] for one in records.values()}) > 10
    for row in rows:
        record = records[row["image_url"]]["json"]
        assert row["captions"].split(" => ") == [
            "a picture",
            record["group_text"],
            record["subgroup_text"],
            record["name"],
        ]
        assert (suites / "hierarcaps" / row["image_url"]).read_bytes() == records[row["image_url"]]["png"]


def test_hierarimgs_chains_run_from_average_images_to_one_image(emoji, suites, read_back):
    folder = suites / "hierarimgs"
    with (folder / "hierarimgs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    trained = [one for one in drawn(emoji, read_back, "train") if one["json"]["design"] == "openmoji"]
    pixels = {one["__key__"]: np.asarray(Image.open(io.BytesIO(one["png"]))) for one in trained}

    def average(**wanted):
        kept = [one["__key__"] for one in trained if all(one["json"][k] == value for k, value in wanted.items())]
        assert kept
        mean = np.zeros((8, 8, 3))
        for key in kept:
            mean += pixels[key]
        return mean / len(kept)

    records = {one["__key__"]: one["json"] for one in drawn(emoji, read_back, "test-openmoji")}
    for row in rows:
        *averages, own = row["images"].split(" => ")
        record = records[own.removesuffix(".png")]
        assert row["caption"] == record["name"]
        expected = [
            average(),
            average(group=record["group"]),
            average(group=record["group"], subgroup=record["subgroup"]),
        ]
        for name, mean in zip(averages, expected, strict=True):
            shown = np.asarray(Image.open(folder / name)).astype(float)
            assert np.abs(shown - mean).max() <= 0.5, name
    assert len(rows) == len(lines(suites / "hierarcaps" / "hierarcaps.csv")) - 1


def test_the_task_table_lists_the_written_sets(suites):
    tasks = read_tasks(suites / "emoji-tasks.tsv")
    assert len(tasks) == 12
    for task in tasks:
        assert len(members(suites / task.folders[0] / "test" / "0.tar")) == task.items > 0
    assert {task.metric for task in tasks} == {"accuracy", "recall", "worst_group", "retrieval"}
    record = json.loads((suites / "dataset.json").read_text(encoding="utf-8"))
    assert record["samples"]["emoji-names-goog"] == next(t.items for t in tasks if t.key == "names/goog")
    assert "OpenMoji" in (suites / "ATTRIBUTION.md").read_text(encoding="utf-8")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rebuilding_suites_gives_the_same_bytes_or_does_nothing(emoji, suites, tmp_path, capsys):
    out = tmp_path / "suites"
    words = f"data build suites --data {emoji} --out {out}".split()
    assert main(words) == 0
    assert contents(out) == contents(suites)
    assert main(words) == 0
    assert "was already built: emoji-groups-trained " in capsys.readouterr().out
    (out / "hierarcaps" / "hierarcaps.csv").unlink()
    assert not build_suites(SuitesConfig(data=emoji), out).already_built
    assert contents(out) == contents(suites)


def test_changed_and_damaged_shards(emoji, tmp_path):
    out, other = tmp_path / "suites", shutil.copytree(emoji, tmp_path / "emoji")
    build_suites(SuitesConfig(data=emoji), out)
    path = other / "test-goog-000000.tar"
    samples = members(path)
    changed = json.loads(samples[0]["json"])
    changed["captions"]["name"][0] = "another name"
    write_tar(path, [("k.png", samples[0]["png"]), ("k.json", json.dumps(changed).encode())])
    assert not build_suites(SuitesConfig(data=other), out).already_built
    (sample,) = members(out / "wds_emoji-names-goog_test" / "test" / "0.tar")
    assert sample["txt"] == b"another name"
    before = contents(out)
    path.write_bytes(b"no archive " * 100)
    with pytest.raises(DataError):
        build_suites(SuitesConfig(data=other), out)
    assert contents(out) == before
    (out / "hierarcaps" / "notes.txt").write_text("of somebody")
    with pytest.raises(UserError):
        build_suites(SuitesConfig(data=emoji), out)
    assert (out / "hierarcaps" / "notes.txt").exists()
