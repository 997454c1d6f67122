"""`prolip embed`: embed images and captions."""

from __future__ import annotations

from prolip.cli.command import ended_by_sigterm, finish, parse, prepare
from prolip.embeddings.config import EmbedOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(EmbedOptions, prog, arguments)
    prepare()
    from prolip.embeddings.embed import run_embed

    has_images = options.what != "text" and (options.shards or options.selection or options.images)
    then = f"prolip search --embeddings {options.out} --find {'image' if has_images else 'text'} --text 'a caption'"
    with ended_by_sigterm():
        return finish(run_embed(options), then, [options.out])
