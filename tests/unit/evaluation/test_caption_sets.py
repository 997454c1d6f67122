"""Retrieval, HierarCaps, HierarImgs and uncertainty as suites, against the functions behind them, on small data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from tests.support.captioned_world import CaptionedWorld, evaluate
from tests.support.datacomp_sets import write_packed

from prolip.cli import main
from prolip.data import DataError
from prolip.data.samples import values_at
from prolip.embeddings.embed import Embedded, embed_shards
from prolip.evaluation.caption_sets import caption_members, captions_of, open_captioned, whole_numbers
from prolip.evaluation.folders import TaskFolder
from prolip.gaussian import Gaussian


@pytest.mark.parametrize(
    ("suite", "words", "message"),
    [
        ("retrieval", ["--data", "absent"], "absent"),
        ("retrieval", ["--data", "PAIRS", "--caption_key", "nothing"], "sample p000 has no caption at nothing"),
        ("hierarcaps", ["--data", "PAIRS"], "has 0 tables (.csv)"),
        ("uncertainty", ["--data", "PAIRS", "--num_bins", "40"], "num_bins is 40: there are only"),
    ],
)
def test_wrong_options_of_a_caption_suite_are_named(
    suite: str, words: list[str], message: str, world: CaptionedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(world.pairs) if word == "PAIRS" else word for word in words]
    assert main(["eval", suite, "--checkpoint", world.ours, "--out", str(world.root / "wrong"), *words]) == 2
    assert message in capsys.readouterr().err


def test_retrieval_reads_a_table_of_captions_as_the_hub_has_it(world: CaptionedWorld, tmp_path: Path) -> None:
    rows = [["filename", "raw"], *([f"{number}.jpg", '["a picture", "an emoji of food"]'] for number in range(4))]
    write_packed(tmp_path / "flickr", rows)
    found = evaluate("retrieval", world.ours, tmp_path / "out", "--data", str(tmp_path / "flickr"))
    items = {row["metric"]: row["num_items"] for row in found["figures"]}
    assert items["image to caption R@1"] == 4
    assert items["caption to image R@1"] == 8


@pytest.mark.parametrize("written", ["²", "--5", "5-", "", 1.5, True])
def test_what_is_no_whole_number_is_no_id(written: object) -> None:
    """Python calls "²" a digit, and cannot read it."""
    with pytest.raises(DataError, match=r"s: sample k has \[.*\] at cocoid: it must be a whole number$"):
        whole_numbers(TaskFolder("s", (), [], [], ""), "k", "cocoid", [written], 1)
    assert whole_numbers(TaskFolder("s", (), [], [], ""), "k", "cocoid", ["-5", 7], 2) == [-5, 7]


def test_dotted_keys_reach_values_inside_lists(world: CaptionedWorld) -> None:
    record = {"a": [{"b": ["x", "y"]}, {"b": "z"}, {"c": 1}], "n": 3}
    assert values_at(record, "a.b") == ["x", "y", "z"]
    assert values_at(record, "n") == [3]
    assert values_at(record, "a.q") == []
    folder = open_captioned(str(world.pairs), world.root)
    keys = ("sentences.raw", "cocoid", "cocoid")
    found = embed_shards(world.model, folder.shards, keep=caption_members(*keys))
    with pytest.raises(DataError, match=r"sample p000 has .* at cocoid: it must be 3 whole numbers"):
        captions_of(folder, found, *keys)


def test_only_the_members_that_are_needed_are_kept() -> None:
    assert caption_members() == caption_members("txt", None, None) == ("txt",)
    assert caption_members("sentences.raw") == ("json",)
    assert caption_members("txt", "cocoid", "sentids") == ("txt", "json")


@pytest.mark.parametrize("suite", ["retrieval", "uncertainty"])
def test_two_sets_with_the_same_name_both_have_rows(suite: str, world: CaptionedWorld, tmp_path: Path) -> None:
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
def test_a_missing_set_is_named_and_the_others_run(suite: str, world: CaptionedWorld, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("member", "found"), [(b'{"c": null}', "[None]: captions"), (b'{"c": ["a", 3]}', "['a', 3]: captions")]
)
def test_a_caption_that_is_not_a_text_is_named(member: bytes, found: str) -> None:
    images = Embedded(Gaussian.point(torch.ones(1, 2)), ["k"], {"json": [member]})
    with pytest.raises(DataError, match=re.escape(f"set: sample k has {found} must be texts at c")):
        captions_of(TaskFolder("set", (), [], [], ""), images, "c")
