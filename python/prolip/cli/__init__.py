"""The command line: `prolip COMMAND ...`, one file per command.

Nothing else parses options or writes to the standard output. Options are in the `config.py` of each room, which imports
nothing heavy; a command imports torch after it has parsed them, so that `prolip COMMAND --help` is quick.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence

from prolip.cli import (
    adapt,
    bench,
    calibrate,
    classify,
    compare,
    data,
    demo,
    embed,
    eval,
    explore,
    export,
    import_vectors,
    recipes,
    report,
    search,
    train,
)
from prolip.cli.command import Command, choose

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "data": Command(
        f"make, index and choose from WebDataset shards: prolip data {' | '.join(data.COMMANDS)}", data.run
    ),
    "train": Command("train from recipes and flags: prolip train RECIPE.toml ... --flag value [--dry-run]", train.run),
    "recipes": Command("list the recipes, or print one and what it costs", recipes.run),
    "eval": Command("evaluate models side by side: prolip eval SUITE --checkpoint ... --data ...", eval.run),
    "report": Command("write one page of a run: its results, curves and configuration", report.run),
    "classify": Command(
        "how probable each label is for an image, or for all images of folders and shards", classify.run
    ),
    "calibrate": Command('fit probabilities, label sets and "don\'t know" on labelled images', calibrate.run),
    "compare": Command("distance and inclusion of an image and texts: prolip compare IMAGE TEXT ...", compare.run),
    "embed": Command("embed images and captions into Parquet files, here or on Ray", embed.run),
    "import": Command("bring in embeddings that another program computed", import_vectors.run),
    "adapt": Command(
        "learn uncertainty for a frozen CLIP or SigLIP from its embeddings of pairs, in minutes", adapt.run
    ),
    "search": Command("find embedded images or captions by text or by image", search.run),
    "explore": Command("open a page to try a model: images, captions, their uncertainty", explore.run),
    "export": Command("write a run or a checkpoint in the hub's layout, or push it to the hub", export.run),
    "bench": Command("compare the loader with others: prolip bench data", bench.run),
    "demo": Command("build its data, train, evaluate, write the report; resumes where it stopped", demo.run),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit status: 2 for wrong input, 130 after Ctrl-C, 141 after a closed pipe."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names may have characters that the terminal lacks
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


def _run(arguments: list[str]) -> int:
    try:
        return choose("prolip", COMMANDS, arguments)
    except SystemExit as stop:  # the parser has printed a help text or what is wrong with an option
        return stop.code if isinstance(stop.code, int) else 0
