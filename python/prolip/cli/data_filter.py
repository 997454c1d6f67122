"""`prolip data filter`: copy shards or folders of images with the samples that a ranking keeps."""

from __future__ import annotations

from pathlib import Path

from prolip.cli.command import finish, parse, prepare
from prolip.closing import command
from prolip.embeddings.config import FilterOptions


def _captions(folder: Path) -> list[str]:
    """Return the option for the images' captions: files beside them, names in a flat folder, or class folders."""
    if next(folder.rglob("*.txt"), None) is not None:
        return ["--captions", "text"]
    is_flat = any(path.is_file() and path.suffix != ".json" for path in folder.iterdir())
    return ["--captions", "name"] if is_flat else []


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(FilterOptions, prog, words)
    prepare()
    from prolip.embeddings.filter import run_filter

    lines = run_filter(options)
    then = command("data", "build", "folder", "--images", options.out, *_captions(options.out), "--out", "FOLDER")
    if copies := sorted(options.out.rglob("*.tar")):
        then = command("train", "RECIPE", "--shards", copies[0].parent / "*.tar")
    finish(lines, then, [options.out])
    return 0
