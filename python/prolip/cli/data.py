"""`prolip data build | index | rank | filter`."""

from __future__ import annotations

from prolip.cli import data_build, data_filter, data_index, data_rank
from prolip.cli.command import Command, choose, ended_by_sigterm

COMMANDS = {
    "build": Command("make WebDataset shards", data_build.run),
    "index": Command("index shards, so that training opens them at once", data_index.run),
    "rank": Command("rank embedded samples by uncertainty, or by how well caption and image fit", data_rank.run),
    "filter": Command("copy the shards, or the images of a folder, that a ranking keeps", data_filter.run),
}


def run(prog: str, words: list[str]) -> int:
    """Run the command that the first word names."""
    with ended_by_sigterm():
        return choose(prog, COMMANDS, words)
