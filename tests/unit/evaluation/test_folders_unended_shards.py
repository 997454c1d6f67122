"""Shards without an end of archive: the error names the setting that accepts them, in every command."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from tests.support.captioned_world import CaptionedWorld

from prolip.cli import main

COLUMNS = ("key", "name", "folders", "items", "metric", "group_column", "averages")
COMMANDS = {
    "zero_shot": ["eval", "zero_shot", "--data", "{data}/wds_pairs_test"],
    "retrieval": ["eval", "retrieval", "--data", "{data}/wds_pairs_test"],
    "uncertainty": ["eval", "uncertainty", "--data", "{data}/wds_pairs_test", "--num_bins", "2"],
    "decisions": [
        *("eval", "decisions", "--data", "{data}/../wds_pairs_test", "--num_folds", "3"),
        *("--elsewhere", "{data}/wds_pairs_test"),
    ],
    "imagenet": ["eval", "imagenet", "--data", "{data}", "--sets", "pairs", "--voters", "pairs"],
    "datacomp": ["eval", "datacomp", "--data", "{data}", "--table", "{data}/table.tsv"],
    "bprw": ["bprw", "--shards", "{data}/wds_pairs_test/test/*.tar", "--classnames", "{data}/names.txt"],
}


@pytest.fixture(scope="module")
def unended(world: CaptionedWorld) -> Path:
    """The pairs, in archives without an end."""
    folder = world.root / "unended"
    shutil.copytree(world.pairs, folder / "wds_pairs_test")
    for shard in folder.rglob("*.tar"):
        with tarfile.open(shard) as archive:
            archive.getmembers()
            end = archive.offset
        with shard.open("r+b") as file:
            file.truncate(end)
    rows = [
        ("accuracy", "Accuracy", "wds_pairs_test", "12", "accuracy", "-", "-"),
        ("retrieval", "Retrieval", "wds_pairs_test", "12", "retrieval", "-", "-"),
    ]
    (folder / "table.tsv").write_text("".join("\t".join(row) + "\n" for row in (COLUMNS, *rows)))
    (folder / "names.txt").write_text("animals\nnature\n")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_suite_reads_archives_without_an_end_only_if_asked(
    world: CaptionedWorld, unended: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(data=unended) for word in COMMANDS[command]]
    words += ["--checkpoint", world.ours, "--out", str(tmp_path)]
    assert main(words) == 2
    assert "(store.require_archive_end = false accepts such files)" in capsys.readouterr().err
    assert main([*words, "--store.no_require_archive_end"]) == 0
    assert "require_archive_end" not in capsys.readouterr().err
