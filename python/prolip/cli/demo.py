"""`prolip demo`: from nothing to a report; its data (`prolip data build`) and its suite (`prolip eval`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from prolip.build.emoji.config import EmojiConfig, SuitesConfig
from prolip.cli.command import Command, Suite, ended_by_sigterm, finish, finish_build, parse, prepare
from prolip.demo.config import DemoConfig, EmojiOptions
from prolip.errors import log_to_terminal


def run(prog: str, arguments: list[str]) -> int:
    """Build, train, evaluate and report; returns the exit status of the training if that ended it."""
    config = parse(DemoConfig, prog, arguments)
    log_to_terminal(logging.INFO)
    prepare()
    from prolip.demo.run import run_demo

    with ended_by_sigterm():
        status, lines = run_demo(config)
    report = (config.out / "report.html").resolve()
    keys = "--caption_key captions.name captions.subgroup captions.group --class_key captions.group"
    then = f"open {report} in a browser, or prolip explore --checkpoint {config.out} --shards {config.data} {keys}"
    finish(lines, then, [report])
    return status


def _emoji(prog: str, arguments: list[str]) -> int:
    def options(
        config: tyro.conf.OmitArgPrefixes[EmojiConfig], out: Path = Path("data/emoji")
    ) -> tuple[EmojiConfig, Path]:
        """Shards of emoji images with their Unicode names: training, validation and test sets split by emoji.

        Args:
            config: How they are made.
            out: Folder of the shards, attributions and tokenizer.
        """
        return config, out

    config, out = parse(options, prog, arguments)
    from prolip.build.emoji.build import build_emoji

    return finish_build(build_emoji(config, out), f"prolip demo --data {out}")


def _suites(prog: str, arguments: list[str]) -> int:
    def options(
        config: tyro.conf.OmitArgPrefixes[SuitesConfig], out: Path = Path("data/emoji-suites")
    ) -> tuple[SuitesConfig, Path]:
        """A small data set for every suite of prolip eval, made of the held-out emoji.

        Args:
            config: Its settings.
            out: Folder of the data sets.
        """
        return config, out

    config, out = parse(options, prog, arguments)
    from prolip.build.emoji.suite_datasets import build_suites

    then = f"prolip eval datacomp --checkpoint runs/demo --data {out} --table {out}/emoji-tasks.tsv"
    return finish_build(build_suites(config, out), then)


def _suite() -> Callable[..., Any]:
    from prolip.demo.suite import run_emoji

    return run_emoji


BUILDERS = {
    "emoji": Command("emoji images and their Unicode names, the demo's data", _emoji),
    "suites": Command("the held-out emoji as a data set for every suite of prolip eval", _suites),
}
SUITES = {"emoji": Suite("the demo's figures on the emoji shards, beside an untrained model", EmojiOptions, _suite)}
