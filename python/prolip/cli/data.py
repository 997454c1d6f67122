"""`prolip data build | index | rank | filter | combine`."""

from __future__ import annotations

from prolip.cli import data_build
from prolip.cli.command import Command, choose, ended_by_sigterm, finish, parse, prepare
from prolip.data.config import CombineOptions, IndexOptions
from prolip.embeddings.config import FilterOptions, RankOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command that the first argument names."""
    with ended_by_sigterm():
        return choose(prog, COMMANDS, arguments)


def _index(prog: str, arguments: list[str]) -> int:
    """Write or check an index; returns the exit status, 1 if a checked index differs from its shards."""
    options = parse(IndexOptions, prog, arguments)
    from prolip.data.index import run_index

    status, lines = run_index(options)
    then = f"--data.index {options.out} in prolip train" if status == 0 else "the same command without --check"
    finish(lines, then, [] if options.check else [options.out])
    return status


def _rank(prog: str, arguments: list[str]) -> int:
    options = parse(RankOptions, prog, arguments)
    prepare()
    from prolip.embeddings.rank import run_rank

    lines = run_rank(options)
    then = f"prolip data filter --ranking {options.out} --keep_share 0.8 --out FOLDER"
    finish(lines, then, [options.out, options.sheet])
    return 0


def _filter(prog: str, arguments: list[str]) -> int:
    options = parse(FilterOptions, prog, arguments)
    prepare()
    from prolip.embeddings.filter import run_filter

    lines = run_filter(options)
    then = f"prolip embed --checkpoint MODEL --images {options.out} --out FOLDER"
    if (shard := next(options.out.rglob("*.tar"), None)) is not None:
        then = f"prolip train RECIPE --shards '{shard.parent}/*.tar'"
    finish(lines, then, [options.out])
    return 0


def _combine(prog: str, arguments: list[str]) -> int:
    options = parse(CombineOptions, prog, arguments)
    from prolip.data.selection import run_combine

    finish(run_combine(options), f"prolip train RECIPE --data.selection {options.out}", [options.out])
    return 0


COMMANDS = {
    "build": Command("make WebDataset shards", data_build.run),
    "index": Command("index shards, so that training opens them at once", _index),
    "rank": Command("rank embedded samples by uncertainty, or by how well caption and image fit", _rank),
    "filter": Command("copy the shards, or the images of a folder, that a ranking keeps", _filter),
    "combine": Command("combine selections: samples of all, of any, or of the first without the others", _combine),
}
