"""What a run tells: metrics.jsonl and TensorBoard on the disk, a line of progress on the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TextIO

from torch.utils.tensorboard.writer import SummaryWriter

# Groups of TensorBoard's page; what is not named here is a term of the loss.
_GROUPS = {
    "lr": "optim",
    "grad_norm": "optim",
    "logit_scale": "model",
    "logit_bias": "model",
    "image_uncertainty": "model",
    "text_uncertainty": "model",
    "samples_per_s": "speed",
    "data_wait_share": "speed",
    "time_s": "speed",
    "samples": "speed",
}


class MetricsLog:
    """Writes rows of metrics to `metrics.jsonl` and `tensorboard/` of a run's folder, each step once.

    Args:
        folder: the run's folder.
        resumed_step: steps done before this sitting. Rows of later steps, and a last line that a crash cut short, are
            dropped: the run computes them again.
    """

    def __init__(self, folder: Path, resumed_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        kept = [line for line in read_lines(path) if json.loads(line)["step"] <= resumed_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, row: Mapping[str, float]) -> None:
        """Writes one row; it must have `step`."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(f"{_GROUPS.get(name, 'loss')}/{name}", value, int(row["step"]))

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> list[str]:
    """The whole lines of a JSONL file; none when it doesn't exist."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=False) if line.endswith("}")]


class Progress:
    """One line that says how a run goes: rewritten in place on a terminal, a line a row elsewhere."""

    def __init__(self, total_steps: int, stream: TextIO = sys.stderr) -> None:
        self._total_steps = total_steps
        self._stream = stream
        self._in_place = stream.isatty()
        self._width = 0

    def show(self, row: Mapping[str, float]) -> None:
        """Tells a row of metrics, and when the run will be done at the present speed."""
        step = int(row["step"])
        samples_per_step = row["samples"] / step
        seconds_left = (self._total_steps - step) * samples_per_step / max(row["samples_per_s"], 1e-9)
        line = (
            f"step {step}/{self._total_steps}  loss {row['loss']:.4f} "
            f"({' '.join(f'{short} {row[name]:.3g}' for name, short in _TERMS.items())})  "
            f"{row['samples_per_s']:.0f} samples/s  waiting for data {100 * row['data_wait_share']:.0f}%  "
            f"ETA {format_seconds(seconds_left)}"
        )
        self._stream.write(f"\r{line.ljust(self._width)}" if self._in_place else f"{line}\n")
        self._stream.flush()
        self._width = len(line)

    def close(self) -> None:
        """Ends a line that was being rewritten."""
        if self._in_place and self._width:
            self._stream.write("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_TERMS = {
    "ppcl": "ppcl",
    "inclusion": "incl",
    "masked_image_inclusion": "img",
    "masked_text_inclusion": "txt",
    "vib": "vib",
}


def format_seconds(seconds: float) -> str:
    """A duration for people: 0:45, 12:03, 3:20:00, 2d 3:20:00."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    clock = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours or days else f"{rest // 60}:{rest % 60:02d}"
    return f"{days}d {clock}" if days else clock


class Interval(NamedTuple):
    """What lies between two rows of metrics: steps `first + 1` to `last`."""

    first: int
    last: int
    seconds: float
    wait_seconds: float


class Stopwatch:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds
