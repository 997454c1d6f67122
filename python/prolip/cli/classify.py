"""`prolip classify`: how probable each label is for an image, or for all images of folders and shards."""

from __future__ import annotations

from prolip.cli.command import ended_by_sigterm, finish, parse, prepare
from prolip.inference.config import ClassifyOptions


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(ClassifyOptions, prog, arguments)
    prepare()
    if options.out is not None:
        from prolip.embeddings.classify import run_classify_all

        with ended_by_sigterm():
            lines = run_classify_all(options, options.out)
        return finish(lines, f"prolip explore --checkpoint {options.checkpoint} --images FOLDER", [options.out])
    from prolip.inference.one_image import run_classify

    then = f"prolip compare {options.image} TEXT ... --checkpoint {options.checkpoint}"
    return finish(run_classify(options), then, for_programs=options.json)
