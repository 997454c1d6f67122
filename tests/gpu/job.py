"""What a part of the GPU run receives, and how it reports."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tests.support.small_step import ALONE


@dataclass(frozen=True, kw_only=True)
class Job:
    """Device and size of a part, its folders, and its rows."""

    device: str
    """ "cuda" or "cpu"."""
    small: bool
    """Small enough for an ordinary test."""
    scratch: Path
    """Folder of the run, which all parts share."""
    emit: Callable[[dict[str, Any]], object]
    """Takes a row."""

    @property
    def place(self):
        return torch.device("cuda", 0) if self.on_gpu else torch.device("cpu")

    @property
    def ranks(self):
        """A single process on the device."""
        return alone_on(self.place)

    @property
    def on_gpu(self):
        return self.device == "cuda"

    def check(self, what, error, limit, why):
        """An error that must not exceed a limit."""
        passed = math.isfinite(error) and error <= limit
        found = error if math.isfinite(error) else str(error)  # JSON has no NaN
        self.emit({"what": what, "error": found, "limit": limit, "passed": passed, "why": why})

    def figure(self, what, value, unit="", why="", *, goal=None, more_is_better=True):
        """A measurement, perhaps with a goal."""
        row = {"what": what, "value": value, "unit": unit, "why": why}
        self.emit(row if goal is None else {**row, "goal": goal, "more_is_better": more_is_better})

    def not_run(self, what, why="needs CUDA"):
        self.emit({"what": what, "not_run": why})

    def choose_compiler(self):
        """In a small run, trace and differentiate graphs but generate no code: the C++ compiler would take minutes."""
        if self.small:
            torch.compiler.set_default_backend("aot_eager")

    def synchronize(self):
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()


def alone_on(device):
    return replace(ALONE, device=device)
