"""What is wrong with the data of one suite or another: it names itself, and what is whole is evaluated."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.unit.eval.sample_tasks import write_open_clip
from tests.unit.eval.test_imagenet_suite import write_set
from tests.unit.eval.test_pair_suites import World, write_hierarchies

from prolip.cli import main
from prolip.suites.config import RetrievalOptions


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("faults"))


def evaluate(suite: str, source: str, out: Path, *words: str) -> Any:
    assert main(["eval", suite, "--checkpoint", source, "--out", str(out), "--num_resamples", "0", *words]) == 0
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize("fault", ["counted", "cut", "missing"])
def test_a_damaged_imagenet_stops_none_of_its_shifts(fault: str, world: World, tmp_path: Path) -> None:
    for name in ("imagenet1k", "imagenet-a"):
        write_set(tmp_path / "data", name)
    folder = tmp_path / "data" / "wds_imagenet1k_test"
    if fault == "counted":
        (folder / "test" / "nshards.txt").write_text("3")
        said = "counts 3 shards: 2.tar is missing"
    elif fault == "cut":
        (folder / "test" / "1.tar").write_bytes((folder / "test" / "1.tar").read_bytes()[:1000])
        said = "1.tar"
    else:
        shutil.rmtree(folder)
        said = "wds_imagenet1k_test is not in"
    words = ["--data", str(tmp_path / "data"), "--sets", "imagenet1k", "imagenet-a", "--nearest.num_neighbors", "4"]
    found = evaluate("imagenet", world.ours, tmp_path / "out", *words)
    metrics = {row["metric"] for row in found["figures"]}
    assert {row["task"] for row in found["figures"]} == {"ImageNet-A"}
    assert "accuracy, BPRW, nearest" in metrics
    assert "accuracy, BPRW, few-shot" not in metrics
    first, second = found["notes"][world.ours]
    assert first.startswith("ImageNet: ")
    assert second.startswith("ImageNet-A: few-shot re-weighting: ")
    assert said in first
    assert said in second


@pytest.mark.parametrize("suite", ["retrieval", "uncertainty"])
def test_two_sets_of_one_name_both_have_rows(suite: str, world: World, tmp_path: Path) -> None:
    shutil.copytree(world.pairs, tmp_path / "other" / world.pairs.name)
    shutil.copytree(world.pairs, tmp_path / "third")
    sources = [str(world.pairs), str(tmp_path / "other" / world.pairs.name), str(tmp_path / "third")]
    given = [word for source in (*sources, sources[0]) for word in ("--data", source)]
    words = ["--num_bins", "3"] if suite == "uncertainty" else []
    found = evaluate(suite, world.ours, tmp_path / "out", *given, *words)
    tasks = [row["task"] for row in found["figures"]]
    assert set(tasks) == {*sources[:2], "third"}
    assert len({tasks.count(task) for task in tasks}) == 1


@pytest.mark.parametrize("suite", ["retrieval", "uncertainty"])
def test_a_set_that_is_not_here_is_named_and_the_others_run(suite: str, world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sources = [str(tmp_path / "empty"), "pipe:cat a.tar", str(tmp_path / "absent.tar"), str(world.pairs)]
    given = [word for source in sources for word in ("--data", source)]
    words = ["--num_bins", "3", "--show", "0"] if suite == "uncertainty" else []
    found = evaluate(suite, world.ours, tmp_path / "out", *given, *words)
    assert {row["task"] for row in found["figures"]} == {world.pairs.name}
    empty, command, absent = found["notes"][world.ours]
    assert empty == f"empty: {tmp_path / 'empty'} has no shard"
    assert command.startswith("pipe:cat a.tar: ")
    assert "allow_pipe" in command
    assert absent.startswith("absent.tar: ")
    assert str(tmp_path / "absent.tar") in absent


def test_cocos_pairs_are_looked_for_before_anything_is_embedded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("pictures were embedded")

    monkeypatch.setattr("prolip.suites.retrieval.embed_shards", fail)
    monkeypatch.setattr("prolip.suites.coco_pairs.find_spec", lambda _: None)
    words = ["--data", str(world.pairs), "--image_id_key", "cocoid", "--caption_ids_key", "sentids"]
    assert main(["eval", "retrieval", "--checkpoint", world.ours, "--out", str(tmp_path), *words]) == 2
    assert "pip install 'prolip[eval]'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="image_id_key needs one data set, COCO's test set: data has 2"):
        RetrievalOptions(checkpoint=("x",), data=("y", "z"), image_id_key="a", caption_ids_key="b")


FAULTS = {
    "no picture": (lambda folder: (folder / "h4.png").unlink(), "has no image h4.png"),
    "broken picture": (lambda folder: (folder / "h4.png").write_bytes(b"none"), "cannot be"),
    "two tables": (lambda folder: (folder / "other.csv").write_text("a\n1\n"), "has 2 tables (.csv): it must have one"),
    "a short row": (
        lambda folder: (folder / "table.csv").write_text((folder / "table.csv").read_text() + "a\n"),
        "rows differ in their number of levels",
    ),
    "no text": (lambda folder: (folder / "table.csv").write_bytes(b"\xff\n"), "table.csv: 'utf-8' codec"),
    "broken zip": (lambda folder: (folder / "more.zip").write_bytes(b"none"), "more.zip: File is not a zip file"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("suite", ["hierarcaps", "hierarimgs"])
def test_a_fault_of_a_hierarchy_is_named(
    suite: str, fault: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hierarchies"
    write_hierarchies(folder)
    damage, said = FAULTS[fault]
    damage(folder)
    words = ["--checkpoint", world.ours, "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(["eval", suite, *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"prolip eval {suite}: ")
    assert said in told
    assert str(folder) in told or str(tmp_path / "out") in told


def test_pictures_may_lie_in_a_zip(world: World, tmp_path: Path) -> None:
    folder, source = tmp_path / "hierarchies", write_open_clip(tmp_path / "clip")
    write_hierarchies(folder)
    loose = evaluate("hierarcaps", source, tmp_path / "loose", "--data", str(folder))
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in sorted(folder.glob("*.png")):
            archive.write(path, f"inside/{path.name}")
            path.unlink()
    packed = evaluate("hierarcaps", source, tmp_path / "packed", "--data", str(folder))
    assert packed == loose
