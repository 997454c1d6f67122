"""`prolip search`: find embedded images or captions."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.embeddings.config import SearchOptions


def _next(options: SearchOptions) -> str:
    """A command that works on these embeddings: what has no variances is ranked only by distance."""
    from prolip.embeddings.storage import Manifest
    from prolip.store.folder import Folder

    manifest = Manifest.read(Folder(options.embeddings))
    by: str = options.find
    if not manifest.has_variances:
        if len(manifest.rows) < 2:
            page = "the same command with --sheet FILE.html shows images and captions on a page"
            return page if options.sheet is None else f"open {options.sheet} in a browser"
        by = "csd"
    return f"prolip data select --embeddings {options.embeddings} --by {by} --keep_share 0.8 --out chosen"


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(SearchOptions, prog, arguments)
    prepare()
    from prolip.embeddings.search import run_search

    return finish(run_search(options), _next(options), [options.sheet], for_programs=options.json)
