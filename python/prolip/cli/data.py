"""`prolip data build | index | rank | filter`."""

from __future__ import annotations

from pathlib import Path

from prolip.cli import data_build
from prolip.cli.command import Command, choose, ended_by_sigterm, finish, parse, prepare
from prolip.closing import command
from prolip.data.config import IndexOptions
from prolip.embeddings.config import FilterOptions, RankOptions


def run(prog: str, words: list[str]) -> int:
    """Run the command that the first word names."""
    with ended_by_sigterm():
        return choose(prog, COMMANDS, words)


def _index(prog: str, words: list[str]) -> int:
    """Write or check an index; returns the exit status, 1 if a checked index differs from its shards."""
    options = parse(IndexOptions, prog, words)
    from prolip.data import without_secrets
    from prolip.data.index import run_index

    status, lines = run_index(options)
    again = ("--shards", *map(without_secrets, options.shards))
    then = command("train", "RECIPE", *again, "--data.index", options.out)
    if status:
        then = command("data", "index", *again, "--out", options.out)
    finish(lines, then, [] if options.check else [options.out])
    return status


def _rank(prog: str, words: list[str]) -> int:
    options = parse(RankOptions, prog, words)
    prepare()
    from prolip.embeddings.rank import run_rank
    from prolip.embeddings.storage import Manifest

    lines = run_rank(options)
    then = command("data", "filter", "--ranking", options.out, "--keep_share", "0.8", "--out", "FOLDER")
    if options.by == "text" and Manifest.read(options.embeddings).has_lines:  # lines cannot be copied
        then = command("search", "--embeddings", options.embeddings, "--find", "text", "--text", "a caption")
    finish(lines, then, [options.out, options.sheet])
    return 0


def _filter(prog: str, words: list[str]) -> int:
    options = parse(FilterOptions, prog, words)
    prepare()
    from prolip.embeddings.filter import run_filter

    lines = run_filter(options)
    then = command("data", "build", "folder", "--images", options.out, *_captions(options.out), "--out", "FOLDER")
    if copies := sorted(options.out.rglob("*.tar")):
        then = command("train", "RECIPE", "--shards", copies[0].parent / "*.tar")
    finish(lines, then, [options.out])
    return 0


def _captions(folder: Path) -> list[str]:
    """Return the option for the images' captions: files beside them, names in a flat folder, or class folders."""
    if next(folder.rglob("*.txt"), None) is not None:
        return ["--captions", "text"]
    is_flat = any(path.is_file() and path.suffix != ".json" for path in folder.iterdir())
    return ["--captions", "name"] if is_flat else []


COMMANDS = {
    "build": Command("make WebDataset shards", data_build.run),
    "index": Command("index shards, so that training opens them at once", _index),
    "rank": Command("rank embedded samples by uncertainty, or by how well caption and image fit", _rank),
    "filter": Command("copy the shards, or the images of a folder, that a ranking keeps", _filter),
}
