"""`prolip bench data`: compare the loader with others."""

from __future__ import annotations

import sys

from prolip.bench.config import BenchDataConfig
from prolip.cli.command import Command, choose, finish, parse, write_lines


def run(prog: str, arguments: list[str]) -> int:
    """Run the benchmark that the first argument names."""
    return choose(prog, BENCHMARKS, arguments)


def _data(prog: str, arguments: list[str]) -> int:
    config = parse(BenchDataConfig, prog, arguments)
    from prolip.bench.data import json_lines, measure, table

    measured = measure(config, lambda line: write_lines([line], sys.stderr))
    then = "--against webdataset measures the published stack too" if not config.against else "prolip train RECIPE"
    return finish((json_lines if config.json else table)(config, measured), then, for_programs=config.json)


BENCHMARKS = {"data": Command("our loader compared with baselines, on shards", _data)}
