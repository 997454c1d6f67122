"""The progress line of a run on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Self, TextIO


class Progress:
    """Writes one progress line: rewritten in place on a terminal, a new line per row elsewhere.

    A line that cannot be written, because its file is on a full disk or its reader has ended, does not end the run.
    """

    def __init__(self, total_steps: int, stream: TextIO = sys.stderr) -> None:
        self._total_steps = total_steps
        self._stream = stream
        self._in_place = stream.isatty()
        self._width = 0

    def show(self, row: Mapping[str, float]) -> None:
        """Write a row of metrics, with the time left at the current speed."""
        step = int(row["step"])
        samples_per_step = row["samples"] / step
        seconds_left = (self._total_steps - step) * samples_per_step / max(row["samples_per_s"], 1e-9)
        line = (
            f"step {step}/{self._total_steps}  loss {row['loss']:.4f} "
            f"({' '.join(f'{short} {row[name]:.3g}' for name, short in _TERMS.items())})  "
            f"{row['samples_per_s']:.0f} samples/s  waiting for data {100 * row['data_wait_share']:.0f}%  "
            f"ETA {format_seconds(seconds_left)}"
        )
        self._write(f"\r{line.ljust(self._width)}" if self._in_place else f"{line}\n")
        self._width = len(line)

    def show_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the first metric of each validation set (`val/NAME`) on a line of its own."""
        first: dict[str, str] = {}
        for name, value in metrics.items():
            first.setdefault(name.rpartition("/")[0], f"{name} {value:.4g}")
        self.close()
        self._write(f"evaluated at step {step}: {', '.join(first.values())}\n")

    def close(self) -> None:
        """End the line that is being rewritten."""
        if self._in_place and self._width:
            self._write("\n")
        self._width = 0

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


_TERMS = {
    "ppcl": "ppcl",
    "inclusion": "incl",
    "masked_image_inclusion": "img",
    "masked_text_inclusion": "txt",
    "vib": "vib",
}


def format_seconds(seconds: float) -> str:
    """Format a duration: 0:45, 12:03, 3:20:00, 2d 3:20:00."""
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    clock = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours or days else f"{rest // 60}:{rest % 60:02d}"
    return f"{days}d {clock}" if days else clock
