"""`prolip data`: make, index and choose from shards."""

from __future__ import annotations

from functools import partial, reduce

from prolip.cli import data_build
from prolip.cli.command import Command, choose, ended_by_sigterm, finish, parse, prepare
from prolip.data.config import CombineOptions, IndexOptions
from prolip.embeddings.config import CopyOptions, DedupeOptions, SelectOptions
from prolip.errors import check


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


def _select(prog: str, arguments: list[str]) -> int:
    options = parse(SelectOptions, prog, arguments)
    prepare()
    from prolip.embeddings.select import run_select

    return finish(run_select(options), _use(options.out), [options.out, options.sheet])


def _dedupe(prog: str, arguments: list[str]) -> int:
    options = parse(DedupeOptions, prog, arguments)
    prepare()
    from prolip.embeddings.dedupe import run_dedupe

    return finish(run_dedupe(options), _use(options.out), [options.out, options.sheet])


def _combine(prog: str, arguments: list[str]) -> int:
    options = parse(CombineOptions, prog, arguments)
    check(len(options.selections) > 1, "selections", "must be at least two files", len(options.selections))
    from prolip.store.selection import combine, read_selection, write_selection

    count = write_selection(
        options.out, reduce(partial(combine, how=options.how), map(read_selection, options.selections))
    )
    return finish([f"{options.out}: {count:,} samples"], _use(options.out), [options.out])


def _use(selection: str) -> str:
    return f"prolip train RECIPE --data.selection {selection}, or prolip data copy --selection {selection} --out FOLDER"


def _copy(prog: str, arguments: list[str]) -> int:
    options = parse(CopyOptions, prog, arguments)
    prepare()
    from prolip.embeddings.copy_samples import run_copy

    lines = run_copy(options)
    then = f"prolip embed --checkpoint MODEL --images {options.out} --out FOLDER"
    if (shard := next(options.out.rglob("*.tar"), None)) is not None:
        then = f"prolip train RECIPE --shards '{shard.parent}/*.tar'"
    return finish(lines, then, [options.out])


COMMANDS = {
    "build": Command("make WebDataset shards", data_build.run),
    "index": Command("index shards, so that training opens them at once", _index),
    "select": Command("choose samples by uncertainty, or by how well caption and image fit", _select),
    "dedupe": Command("of embedded near-duplicates, choose the most certain", _dedupe),
    "combine": Command("combine selections: samples of all, of any, or of the first without the others", _combine),
    "copy": Command("copy the samples of a selection: shards, or the images of a folder", _copy),
}
