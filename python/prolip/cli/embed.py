"""`prolip embed`: embed images and captions."""

from __future__ import annotations

from prolip.cli.command import parse, prepare, write_lines
from prolip.embeddings.config import EmbedOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(EmbedOptions, prog, words)
    prepare()
    from prolip.embeddings.embed_parts import run_embed

    write_lines(run_embed(options))
    return 0
