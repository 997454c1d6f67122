"""`prolip import`: bring in embeddings that another program computed."""

from __future__ import annotations

from prolip.cli.command import finish, parse, prepare
from prolip.embeddings.config import ImportOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(ImportOptions, prog, arguments)
    prepare()
    from prolip.embeddings.import_vectors import run_import

    then = f"prolip adapt --method counted --embeddings {options.out} --out counted"
    if options.checkpoint is not None:
        find = "image" if options.image else "text"
        then = f"prolip search --embeddings {options.out} --vector QUERIES.npy --find {find}"
    return finish(run_import(options), then, [options.out])
