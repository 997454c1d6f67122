"""Settings of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prolip.errors import check_at_least
from prolip.evaluation.config import SuiteOptions


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Build the emoji shards, train on them, evaluate, and write a report. Rerun the command to resume."""

    out: Path = Path("runs/demo")
    """Folder of the run and its report."""
    data: Path = Path("data/emoji")
    """Folder of the shards."""
    recipe: str = "demo"
    """Name or path of the recipe."""
    processes: int = 0
    """Training processes; 0 for one per GPU, or without GPUs for up to 4 on the CPU's cores."""

    def __post_init__(self) -> None:
        check_at_least(0, processes=self.processes)


EvalSplit = Literal["val", "test"]


@dataclass(frozen=True, kw_only=True)
class EmojiOptions(SuiteOptions):
    """Evaluate ProLIP models on the emoji shards, beside untrained models.

    `prolip report` shows the results of a run. A run that has no calibration gets one, on validation emoji.
    """

    data: Path = Path("data/emoji")
    """Emoji shards, as `prolip data build emoji` writes them."""
    split: EvalSplit = "test"
    """`val` to choose settings, `test` to report."""
