"""`prolip bench data | decode | targets`: compare loader and decoder with others."""

from __future__ import annotations

import sys

from prolip.bench.config import BenchDataConfig, BenchDecodeConfig, BenchTargetsConfig
from prolip.cli.command import Command, choose, finish, parse


def run(prog: str, words: list[str]) -> int:
    """Run the benchmark that the first word names."""
    return choose(prog, BENCHMARKS, words)


def _data(prog: str, words: list[str]) -> int:
    config = parse(BenchDataConfig, prog, words)
    from prolip.bench.data import contenders, json_lines, measure, table

    runs = measure(config, contenders(config), _log)
    then = "--against webdataset,hand-made measures other loaders too" if not config.against else "prolip train RECIPE"
    finish((json_lines if config.json else table)(config, runs), then, for_programs=config.json)
    return 0


def _decode(prog: str, words: list[str]) -> int:
    config = parse(BenchDecodeConfig, prog, words)
    from prolip.bench.decode import json_lines, run, table

    found, absent = run(config, _log)
    then = (
        "--workers 0 2 measures a torch DataLoader too" if not config.workers else "prolip bench targets --images DIR"
    )
    finish(json_lines(found) if config.json else table(config, found, absent), then, for_programs=config.json)
    return 0


def _targets(prog: str, words: list[str]) -> int:
    config = parse(BenchTargetsConfig, prog, words)
    from prolip.bench.targets import json_lines, measure, table

    rows, others_cores = measure(config, _log)
    then = "prolip bench decode --images DIR lists all decoders"
    finish((json_lines if config.json else table)(config, rows, others_cores), then, for_programs=config.json)
    return 0


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")


BENCHMARKS = {
    "data": Command("our loader compared with baselines, on shards", _data),
    "decode": Command("our JPEG decoder compared with others, on a folder of photographs", _decode),
    "targets": Command("loader and decoder at each level of vector instructions, compared with targets", _targets),
}
