"""`prolip embed`: embed images and captions."""

from __future__ import annotations

from prolip.cli.command import ended_by_sigterm, finish, parse, prepare
from prolip.closing import command
from prolip.embeddings.config import EmbedOptions


def run(prog: str, words: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(EmbedOptions, prog, words)
    prepare()
    from prolip.embeddings.embed_parts import run_embed

    only_texts = options.what == "text" or not (options.shards or options.images)
    kind = ["--find", "text"] if only_texts else []
    then = command("search", "--embeddings", options.out, *kind, "--text", "a caption")
    with ended_by_sigterm():
        finish(run_embed(options), then, [options.out])
    return 0
