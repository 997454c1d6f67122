"""`prolip bench targets`: compare loader and decoder, with each set of vector instructions, with the floor and targets.

Photographs as they are and at most 512 pixels long; full recipe. The floor is libjpeg-turbo decoding every pixel on as
many threads. Everything that is compared takes turns in one run, and a ratio is the median over the rounds.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prolip.bench import decode
from prolip.bench.config import BenchDecodeConfig, BenchTargetsConfig, split_names
from prolip.bench.data import FLOOR, run_task
from prolip.bench.data import OURS as OUR_LOADER
from prolip.bench.decode import AS_THEY_ARE, AT_MOST_512, PROGRESSIVE, Contender, Decoded
from prolip.bench.decoders import LIBJPEG, OURS
from prolip.bench.rounds import MAX_OTHERS, cpu_ratio, cpu_us, rate_ratio, rates, warnings
from prolip.bench.task import Measurement, Task, Turn
from prolip.data import StoreConfig, expand_shards, simd_levels
from prolip.data.build.config import FolderConfig
from prolip.data.build.folder import build_folder
from prolip.errors import UserError, check_at_least
from prolip.report.text_table import align

LOADER_TARGETS = {
    "avx512": {AS_THEY_ARE: 1.45, AT_MOST_512: 1.40},
    "avx2": {AS_THEY_ARE: 1.15, AT_MOST_512: 1.05},
    "sse4": {AS_THEY_ARE: 0.90, AT_MOST_512: 0.85},
    "neon": {AS_THEY_ARE: 0.90, AT_MOST_512: 0.85},
}
"""For each set of vector instructions, the rate of the loader over that of the floor."""
PROGRESSIVE_TARGET = 1.3
"""Decoding progressive files: rate over libjpeg-turbo's, with the fastest vector instructions."""
DECODE_TARGET = 1.6
"""Decoding one whole image: rate over that of the best other decoder, with the fastest vector instructions."""
DECODE_IMAGES = 250
"""Images to decode in each turn of a decoder."""
SETS = {AS_THEY_ARE: None, AT_MOST_512: 512}
"""The sets of shards, with the longest side of their images."""
BATCH = 256
"""Samples per batch."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison."""

    what: str
    """What is measured, on which files."""
    level: str
    """The vector instructions of our kernels."""
    against: str
    """What it is compared with."""
    ours: Sequence[Turn]
    """Our turns, one per round."""
    theirs: Sequence[Turn]
    """The turns of the other side in the same rounds."""
    target: float | None
    """What the ratio should be at least; None if there is no target."""

    def verdict(self) -> str:
        """Return whether the target is met: in all rounds, in none, or in some of them."""
        if self.target is None:
            return "-"
        ratio = rate_ratio(self.ours, self.theirs)
        if ratio.least >= self.target:
            return "met"
        if ratio.most < self.target:
            return "missed"
        return "met by median" if ratio.median >= self.target else "missed by median"


def measure(config: BenchTargetsConfig, log: decode.Log) -> tuple[list[Row], float]:
    """Measure everything. Returns the rows and how many cores other programs kept busy in the worst part.

    Raises:
        UserError: a number is out of range, this processor lacks a level, or there are no JPEG files.
        RuntimeError: a contender failed.
    """
    levels = _levels(config)
    with tempfile.TemporaryDirectory() as place:
        folders = decode.write_sets(config.images, Path(place))
        loaded = _load(config, levels, folders[AS_THEY_ARE], Path(place), log)
        of, absent = decode.contenders(BenchDecodeConfig(images=config.images))
        of = [*(Contender(OURS, level) for level in levels), *of[1:]]
        log(f"not installed, so not measured: {', '.join(absent) or 'nothing'}")
        decoded = decode.measure(of, folders, [None], repeats=config.repeats, num_images=DECODE_IMAGES, log=log)
        for name, reason in decoded.failed.items():
            log(f"{name} cannot be used: {reason}")
    rows = [*_loader_rows(loaded, levels), *_decode_rows(decoded, levels)]
    others = [run.others_cores for turns in loaded.values() for run in turns]
    return rows, max(*others, decoded.others_cores)


def _levels(config: BenchTargetsConfig) -> list[str]:
    """Return the levels to measure, fastest first."""
    check_at_least(1, threads=config.threads, repeats=config.repeats)
    check_at_least(1, num_images=config.num_images, gpu_images=config.gpu_images)
    possible = simd_levels()[::-1]
    asked = split_names(config.levels)
    for name in asked:
        if name not in possible:
            raise UserError(f"levels is {name!r}: this processor can run {', '.join(possible)}")
    return [level for level in possible if level in asked or not asked]


Loaded = dict[tuple[str, str], list[Measurement]]
"""For each set, and each level or the floor: one run per round."""


def _load(config: BenchTargetsConfig, levels: list[str], images: Path, into: Path, log: decode.Log) -> Loaded:
    """Run the loader at each level, and the floor, in turns."""
    loaded: Loaded = {}
    shards: dict[str, tuple[str, ...]] = {}
    for files, longest in SETS.items():
        out = into / f"shards-{files.replace(' ', '-')}"
        built = build_folder(FolderConfig(images=images, captions="name", max_side=longest), out)
        found = expand_shards([f"{out}/*.tar"], StoreConfig())
        # A batch needs more samples than a small folder has.
        shards[files] = tuple(found) * math.ceil(4 * BATCH / sum(built.samples.values()))
    for number in range(config.repeats):
        for files, paths in shards.items():
            for name in (*levels, FLOOR):
                task = Task(
                    contender=FLOOR if name == FLOOR else OUR_LOADER,
                    shards=paths,
                    recipe="full",
                    threads=config.threads,
                    images=config.num_images,
                    batch_size=BATCH,
                    image_size=224,
                )
                run = run_task(task, None if name == FLOOR else name)
                loaded.setdefault((files, name), []).append(run)
                log(f"round {number + 1} of {config.repeats}: {files}, {name}: {run.images_per_s:.0f} images/s")
    return loaded


def _loader_rows(loaded: Loaded, levels: list[str]) -> Iterator[Row]:
    for files in SETS:
        for level in levels:
            yield Row(
                what=f"loader, {files}",
                level=level,
                against="libjpeg-turbo alone",
                ours=loaded[files, level],
                theirs=loaded[files, FLOOR],
                target=LOADER_TARGETS.get(level, {}).get(files),
            )


def _decode_rows(decoded: Decoded, levels: list[str]) -> Iterator[Row]:
    """Yield the decoder's rows: progressive files against libjpeg-turbo, others against the best installed decoder."""
    for key, turns in decoded.turns.items():
        others = {contender: passes for contender, passes in turns.items() if contender.decoder != OURS}
        best = max(others, key=lambda contender: rates(others[contender]).median)
        if key.files == PROGRESSIVE:
            best = next(contender for contender in others if contender.decoder == LIBJPEG)
        target = PROGRESSIVE_TARGET if key.files == PROGRESSIVE else DECODE_TARGET
        for level in levels:
            yield Row(
                what=f"decode, {key.files}",
                level=level,
                against=str(best),
                ours=turns[Contender(OURS, level)],
                theirs=others[best],
                target=target if level == levels[0] else None,
            )


def json_lines(config: BenchTargetsConfig, rows: list[Row], others_cores: float) -> Iterator[str]:
    """Yield one JSON object per row."""
    for row in rows:
        record = {"what": row.what, "level": row.level, "against": row.against, "target": row.target}
        values = {
            "images_per_s": rates(row.ours),
            "cpu_us": cpu_us(row.ours),
            "ratio": rate_ratio(row.ours, row.theirs),
            "cpu_ratio": cpu_ratio(row.ours, row.theirs),
        }
        spreads = {name: value._asdict() for name, value in values.items()}
        cores = round(_cores(config, row), 2)
        yield json.dumps({**record, **spreads, "cores_per_gpu": cores, "others_cores": round(others_cores, 2)})


def _cores(config: BenchTargetsConfig, row: Row) -> float:
    """Return the number of cores that feed one GPU."""
    return config.gpu_images * cpu_us(row.ours).median * 1e-6


def table(config: BenchTargetsConfig, rows: list[Row], others_cores: float) -> Iterator[str]:
    """Yield the lines of a table for people."""
    yield (
        f"loader: full recipe, {config.threads} threads, {config.repeats} rounds of {config.num_images} images; "
        f"decode: one thread, whole images, {config.repeats} rounds of {DECODE_IMAGES}"
    )
    heading = ["", "level", "images/s", "against", "ratio", "by CPU time", "target", "", "CPU us", "per core", "cores"]
    cells = [heading]
    for row in rows:
        loader = row.what.startswith("loader")
        cells.append(
            [
                row.what,
                row.level,
                rates(row.ours).text(),
                row.against,
                rate_ratio(row.ours, row.theirs).text(2),
                cpu_ratio(row.ours, row.theirs).text(2),
                "-" if row.target is None else f"{row.target:.2f}",
                row.verdict(),
                f"{cpu_us(row.ours).median:,.0f}",
                f"{1e6 / cpu_us(row.ours).median:,.0f}",
                f"{_cores(config, row):.1f}" if loader else "-",
            ]
        )
    yield from align(cells)
    yield "in brackets the least and the most of the rounds; ratio: our rate over the other's in the same round"
    yield f"per core: images per second of CPU time; cores: for one GPU that takes {config.gpu_images:,} images/s"
    yield from warnings(((f"{row.what} ({row.level})", rates(row.ours)) for row in rows), others_cores)
    if others_cores > MAX_OTHERS:
        yield "the ratios by CPU time suffer less from that than those by rate"
