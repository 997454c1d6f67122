"""`prolip bench data`: measure the loader beside baselines."""

from __future__ import annotations

import sys

from prolip.bench.config import BenchDataConfig
from prolip.cli.command import Command, choose, finish, parse


def run(prog: str, words: list[str]) -> int:
    """Run the benchmark that the first word names."""
    return choose(prog, {"data": Command("measure the loader beside baselines", _data)}, words)


def _data(prog: str, words: list[str]) -> int:
    config = parse(BenchDataConfig, prog, words)
    from prolip.bench.data import contenders, json_lines, measure, table

    summaries = measure(config, contenders(config), lambda line: sys.stderr.write(f"{line}\n"))
    then = "--against webdataset,hand-made measures other loaders too" if not config.against else "prolip train RECIPE"
    finish((json_lines if config.json else table)(config, summaries), then, for_programs=config.json)
    return 0
