"""`prolip bench decode`: compare our JPEG decoder with others, which take turns on the same files.

Follows the protocol of the public imread_benchmark: files are in memory before the clock starts, pixels come as uint8
RGB arrays, and each decoder is timed in a loop on one thread, then inside a torch `DataLoader` with batches of 32.
Each decoder has a process of its own, which lives for the whole run and decodes only in its turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from prolip.bench import proc_stats
from prolip.bench.config import BenchDecodeConfig, split_names
from prolip.bench.data import LEVEL_VARIABLE
from prolip.bench.decoder_process import BATCH, READY, Request
from prolip.bench.decoders import DECODERS, LIBJPEG, OURS, PILLOW
from prolip.bench.rounds import cpu_ratio, cpu_us, rate_ratio, rates, warnings
from prolip.bench.task import Turn
from prolip.errors import UserError, check_at_least
from prolip.report.text_table import align

AS_THEY_ARE, AT_MOST_512, PROGRESSIVE = "as they are", "at most 512", "progressive"
"""The sets of files: photographs as they are; at most 512 pixels long, saved with quality 95; progressive, with 90."""
Log = Callable[[str], object]


class Contender(NamedTuple):
    """A decoder; for ours, with some vector instructions."""

    decoder: str
    """Its name among the decoders."""
    level: str | None = None
    """The vector instructions; None for those that our kernels choose by themselves."""

    def __str__(self) -> str:
        return self.decoder if self.level is None or self.decoder != OURS else f"{self.decoder} {self.level}"


class Key(NamedTuple):
    """The files and workers of a turn, the same for all contenders."""

    files: str
    """The set of files."""
    workers: int | None
    """Workers of the torch `DataLoader`; None for the loop without one."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The measurements of all decoders."""

    turns: dict[Key, dict[Contender, list[Turn]]]
    """For each set and number of workers, the turns of each contender, one per round."""
    same: dict[str, dict[Contender, float]]
    """For each set and contender, the share of files with the same pixels as Pillow's."""
    others_cores: float
    """Cores that the rest of the machine kept busy on average."""
    failed: dict[str, str]
    """Decoders that are installed but cannot be used, with the last line of their error output."""


def contenders(config: BenchDecodeConfig) -> tuple[list[Contender], list[str]]:
    """Return what to measure, ours first, and which decoders are not installed.

    Raises:
        UserError: a decoder is unknown or not installed, or a number is out of range.
    """
    check_at_least(1, repeats=config.repeats, num_images=config.num_images)
    for workers in config.workers:
        check_at_least(0, workers=workers)
    asked = split_names(config.decoders)
    absent = [name for name, decoder in DECODERS.items() if not decoder.installed()]
    for name in asked:
        if name not in DECODERS:
            raise UserError(f"decoders is {name!r}: it must be one of {', '.join(DECODERS)}")
        if name in absent:
            package = DECODERS[name].package
            raise UserError(f"decoders is {name!r}: it needs {package}, try `pip install {package}`")
    chosen = [name for name in DECODERS if name not in absent and (name in asked or not asked)]
    # The others are compared with ours, and all pixels with Pillow's.
    names = dict.fromkeys([OURS, *chosen, PILLOW])
    return [Contender(name, "portable" if name == LIBJPEG else None) for name in names], [] if asked else absent


def write_sets(images: Path, into: Path) -> dict[str, Path]:
    """Write the sets of files made of a folder's JPEG files, and return the folder of each.

    Raises:
        UserError: there is no such folder, no JPEG file in it, or one that cannot be decoded.
    """
    folders = {name: into / name.replace(" ", "-") for name in (AS_THEY_ARE, AT_MOST_512, PROGRESSIVE)}
    for folder in folders.values():
        folder.mkdir()
    paths = sorted(images.iterdir()) if images.is_dir() else []
    found = 0
    for path in paths:
        if path.suffix.lower() not in {".jpg", ".jpeg"}:
            continue
        try:
            with Image.open(path) as image:
                if image.mode not in {"RGB", "L"}:
                    continue  # not all decoders convert CMYK to RGB
                pixels = image.convert("RGB")
        except OSError as error:  # Pillow does not name the file
            raise UserError(f"images: {path} cannot be decoded: {error}") from error
        name = f"{found:06}.jpg"
        (folders[AS_THEY_ARE] / name).symlink_to(path.absolute())
        pixels.save(folders[PROGRESSIVE] / name, quality=90, progressive=True)
        pixels.thumbnail((512, 512))
        pixels.save(folders[AT_MOST_512] / name, quality=95, subsampling="4:2:0")
        found += 1
    if not found:
        raise UserError(f"images is {images}: no folder of JPEG files (it must hold them itself, not in folders)")
    return folders


class _Process:
    """The process of a contender."""

    def __init__(self, contender: Contender):
        self.contender = contender
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the process
        level = {} if contender.level is None else {LEVEL_VARIABLE: contender.level}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prolip.bench.decoder_process", contender.decoder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", **level},
        )
        # Write nothing before the process is ready: a broken pipe would end the command without a message.
        self.is_ready = self._read().strip() == READY

    def close(self) -> None:
        """End the process."""
        with self.errors, self.process:
            self.process.terminate()

    def ask(self, request: Request) -> str:
        """Return the line that answers a request.

        Raises:
            RuntimeError: the process ended; the message ends with what it wrote.
        """
        assert self.process.stdin is not None
        if self.is_ready:
            self.process.stdin.write(f"{request.to_json()}\n")
            self.process.stdin.flush()
        line = self._read()
        if not line:
            raise RuntimeError(f"{self.contender} ended: {self.error_output()}")
        return line

    def error_output(self) -> str:
        """Return the end of the process's standard error."""
        self.errors.seek(0)
        return self.errors.read().strip()[-2000:]

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def measure(
    of: list[Contender],
    folders: dict[str, Path],
    workers: Iterable[int | None],
    *,
    repeats: int,
    num_images: int,
    log: Log,
) -> Decoded:
    """Let the contenders take turns on each set and number of workers, `repeats` times.

    Decoders of other packages that cannot be opened are left out.

    Raises:
        RuntimeError: a decoder failed in its turn, or ours or Pillow's cannot be opened; the message ends with what it
            wrote.
    """
    keys = [Key(files, number) for files in folders for number in workers]
    turns: dict[Key, dict[Contender, list[Turn]]] = {key: {} for key in keys}
    same: dict[str, dict[Contender, float]] = {}
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(_Process(contender))) for contender in of]
        usable = [process for process in opened if process.is_ready or process.contender.decoder in {OURS, PILLOW}]
        failed = {
            str(unfit.contender): unfit.error_output().splitlines()[-1] for unfit in opened if unfit not in usable
        }
        for files, folder in folders.items():
            asked = Request(folder=str(folder), images=0)
            sums = {process.contender: json.loads(process.ask(asked)) for process in usable}
            right = next(found for contender, found in sums.items() if contender.decoder == PILLOW)
            same[files] = {
                contender: sum(a == b for a, b in zip(found, right, strict=True)) / len(right)
                for contender, found in sums.items()
            }
        elapsed = proc_stats.stopwatch()
        for number in range(repeats):
            for key in keys:
                request = Request(folder=str(folders[key.files]), images=num_images, workers=key.workers)
                for process in usable:
                    turns[key].setdefault(process.contender, []).append(Turn.from_json(process.ask(request)))
            log(f"round {number + 1} of {repeats} of the decoders")
        others = elapsed().others_cores
    return Decoded(turns=turns, same=same, others_cores=others, failed=failed)


def run(config: BenchDecodeConfig, log: Log) -> tuple[Decoded, list[str]]:
    """Measure the decoders on the sets made of a folder; also returns the names of those not installed.

    Raises:
        UserError: as `contenders` and `write_sets`.
        RuntimeError: a decoder failed.
    """
    of, absent = contenders(config)
    with tempfile.TemporaryDirectory() as into:
        folders = write_sets(config.images, Path(into))
        workers = (None, *config.workers)
        found = measure(of, folders, workers, repeats=config.repeats, num_images=config.num_images, log=log)
    return found, absent


def json_lines(found: Decoded) -> Iterator[str]:
    """Yield one JSON object per set, number of workers and contender."""
    for key, turns in found.turns.items():
        for contender, passes in turns.items():
            record = {"name": str(contender), **key._asdict(), "version": DECODERS[contender.decoder].version()}
            spread = {"images_per_s": rates(passes)._asdict(), "cpu_us": cpu_us(passes)._asdict()}
            same = found.same[key.files][contender]
            yield json.dumps({**record, **spread, "same_pixels": same, "others_cores": round(found.others_cores, 2)})


def table(config: BenchDecodeConfig, found: Decoded, absent: list[str]) -> Iterator[str]:
    """Yield the lines of a table for each set and number of workers, for people."""
    yield f"{config.repeats} rounds of {config.num_images} images; the least and the most in brackets"
    for key, turns in found.turns.items():
        how = "one thread" if key.workers is None else f"DataLoader, {key.workers} workers, batches of {BATCH}"
        ours = next(passes for contender, passes in turns.items() if contender.decoder == OURS)
        rows = [[f"{key.files}, {how}", "images/s", "CPU us", "ours is", "by CPU time", "same pixels"]]
        for contender, passes in turns.items():
            version = DECODERS[contender.decoder].version()
            rows.append(
                [
                    f"{contender} {version}",
                    rates(passes).text(),
                    cpu_us(passes).text(),
                    f"{rate_ratio(ours, passes).text(2)} x",
                    f"{cpu_ratio(ours, passes).text(2)} x",
                    f"{found.same[key.files][contender]:.1%}",
                ]
            )
        yield from ("", *align(rows))
    yield "same pixels: share of files with Pillow's pixels; CPU us: CPU time per image, over all threads and processes"
    if absent:
        yield f"not installed: {', '.join(absent)}"
    for name, reason in found.failed.items():
        yield f"{name} cannot be used: {reason}"
    spreads = [
        (f"{contender} ({key.files})", rates(passes))
        for key, turns in found.turns.items()
        for contender, passes in turns.items()
    ]
    yield from warnings(spreads, found.others_cores)
