"""`prolip classify`: how probable each label is for an image, or for all images of folders and shards."""

from __future__ import annotations

from prolip.cli.command import ended_by_sigterm, finish, parse, prepare
from prolip.inference.config import ClassifyOptions


def run(prog: str, arguments: list[str]) -> int:
    """Parse the options, run the command, write its lines."""
    options = parse(ClassifyOptions, prog, arguments)
    prepare()
    if options.out is not None:
        from prolip.embeddings.classify_inputs import run_classify_all

        with ended_by_sigterm():
            lines = run_classify_all(options, options.out)
        finish(lines, f"prolip explore --checkpoint {options.checkpoint} --images FOLDER", [options.out])
        return 0
    from prolip.inference.one_image import run_classify

    then = f"prolip compare {options.image} TEXT ... --checkpoint {options.checkpoint}"
    finish(run_classify(options), then, for_programs=options.json)
    return 0
