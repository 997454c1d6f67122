"""`prolip bench data`: measure the loader, pure decoding (the floor) and baselines on the same shards in one run.

Contenders take turns, so that a change in the machine's speed affects all.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from prolip.bench.config import BenchDataConfig
from prolip.bench.contender import FLOOR, OURS, SQUARE, Measurement, run_contender
from prolip.data import StoreConfig, expand_shards
from prolip.report.text_table import align

MAX_SPREAD = 1.15
"""Maximum ratio of a contender's fastest and slowest round; above it figures are called inexact."""
MAX_OTHERS = 0.1
Measured = Mapping[str, Sequence[Measurement]]
"""By contender, one per round; the loader and the floor first."""


def measure(config: BenchDataConfig, log: Callable[[str], object]) -> Measured:
    """Measure each contender `repeats` times; `log` gets a line after each."""
    shards = expand_shards(list(config.shards), StoreConfig())
    names = (OURS, FLOOR, *((SQUARE,) if config.native else ()), *config.against)
    measured: dict[str, list[Measurement]] = {name: [] for name in names}
    for number in range(config.repeats):
        for name, rounds in measured.items():
            rounds.append(run_contender(name, config, shards))
            log(f"round {number + 1} of {config.repeats}: {name} {rounds[-1].images_per_s:.0f} images/s")
    return measured


def json_lines(config: BenchDataConfig, measured: Measured) -> Iterator[str]:
    """One object per contender."""
    for name, rounds in measured.items():
        rates = [one.images_per_s for one in rounds]
        record: dict[str, object] = {
            "name": name,
            "recipe": config.recipe,
            "threads": config.threads,
            "images_per_s": round(statistics.median(rates), 1),
            "min": round(min(rates), 1),
            "max": round(max(rates), 1),
            **{field: round(_median(rounds, field)) for field in ("rss_mb", "pss_mb", "import_mb")},
            "first_batch_s": round(_median(rounds, "first_batch_s"), 3),
            "cpu_us": round(_median(rounds, "cpu_us")),
            "pixels": round(_median(rounds, "pixels")),
            "padding": round(_median(rounds, "padding"), 4),
            "others_cores": round(max(one.others_cores for one in rounds), 2),
        }
        if stages := _stages(rounds):
            record["stage_us"] = {stage: round(value, 1) for stage, value in stages.items()}
        yield json.dumps(record)


def table(config: BenchDataConfig, measured: Measured) -> Iterator[str]:
    """For people."""
    batches = f"batches of {config.batch_size} at {config.image_size} px"
    if config.native:
        batches = f"sequences of {', '.join(map(str, config.native))}, {config.token_budget} patches per batch"
    yield (
        f"recipe {config.recipe}, {config.threads} threads, {batches}, "
        f"{config.repeats} rounds of {config.num_images} images"
    )
    cells = [["", "images/s", "min - max", "of floor", "ours is", "CPU us", "RSS MB", "PSS MB", "imports", "1st batch"]]
    cells[0] += ["padding", "CPU ns/px"] if config.native else []
    ours, floor = (_median(measured[name], "images_per_s") for name in (OURS, FLOOR))
    inexact = []
    for name, rounds in measured.items():
        rate, rates = _median(rounds, "images_per_s"), [one.images_per_s for one in rounds]
        row = [
            name,
            f"{rate:.0f}",
            f"{min(rates):.0f} - {max(rates):.0f}",
            f"{rate / floor:.2f}",
            f"{ours / rate:.2f} x",
        ]
        row += [f"{_median(rounds, field):.0f}" for field in ("cpu_us", "rss_mb", "pss_mb", "import_mb")]
        row.append(f"{_median(rounds, 'first_batch_s'):.2f} s")
        if config.native:
            pixels, padding = _median(rounds, "pixels"), _median(rounds, "padding")
            row += [f"{padding:.1%}", f"{_median(rounds, 'cpu_us') * 1000 / pixels:.2f}"] if pixels else ["", ""]
        cells.append(row)
        if max(rates) > min(rates) * MAX_SPREAD:
            inexact.append(name)
    yield from align(cells)
    yield f"CPU us of {OURS} by stage: " + ", ".join(f"{one} {us:.0f}" for one, us in _stages(measured[OURS]).items())
    if inexact:
        yield (
            f"warning: the rounds of {', '.join(inexact)} differ by more than {MAX_SPREAD - 1:.0%}: these figures are "
            "not exact; repeat on a quiet machine, or with more --repeats"
        )
    others = max(one.others_cores for rounds in measured.values() for one in rounds)
    if others > MAX_OTHERS:
        yield f"warning: other programs kept {others:.1f} cores busy, which slows every contender down"


def _median(measured: Sequence[Measurement], field: str) -> float:
    return float(statistics.median(getattr(one, field) for one in measured))


def _stages(measured: Sequence[Measurement]) -> dict[str, float]:
    """CPU time per image by stage in microseconds, median over the rounds."""
    names = dict.fromkeys(stage for one in measured for stage in one.stage_us)
    return {stage: statistics.median(one.stage_us.get(stage, 0.0) for one in measured) for stage in names}
