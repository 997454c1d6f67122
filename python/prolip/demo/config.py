"""Settings of the demo, its data, its suite and its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prolip.suites.config import SuiteOptions


@dataclass(frozen=True, kw_only=True)
class EmojiConfig:
    """How the emoji shards are made."""

    side: int = 40
    """Side of the square pictures in pixels."""
    test_share: float = 0.15
    """Share of the emoji of each group that is held out for testing."""
    val_share: float = 0.05
    """Share of the emoji of each group that is held out for choosing settings."""
    skin_tone_share: float = 0.2
    """Share of the training samples that are skin-tone variants."""
    vocab_size: int = 2000
    """Largest number of pieces of the tokenizer."""
    context_length: int = 20
    """Tokens that the model reads: longer captions are counted in the summary."""
    samples_per_shard: int = 1000
    """Largest number of samples in a file."""
    seed: int = 0
    """Of the splits, the choice of variants and the order of the training samples."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        for name in ("side", "vocab_size", "context_length", "samples_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("test_share", "val_share", "skin_tone_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be in [0, 1)")
        if self.test_share + self.val_share >= 1:
            raise ValueError(
                f"test_share + val_share = {self.test_share + self.val_share}: must leave emoji to train on"
            )


@dataclass(frozen=True, kw_only=True)
class SuitesConfig:
    """What the suites' data are made of."""

    data: Path = Path("data/emoji")
    """Emoji shards, as `prolip data build emoji` writes them."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Builds the emoji shards, trains on them, evaluates, and writes a report. Stopped, it goes on where it was."""

    out: Path = Path("runs/demo")
    """Folder of the run and its report."""
    data: Path = Path("data/emoji")
    """Folder of the shards."""
    recipe: str = "demo"
    """Name or path of the recipe."""
    processes: int = 0
    """Training processes; 0 takes one a GPU, or up to 4 on the CPU's cores."""


Split = Literal["val", "test"]


@dataclass(frozen=True, kw_only=True)
class EmojiOptions(SuiteOptions):
    """Evaluates models of ours on the emoji shards, beside untrained ones.

    A run's own figures, from which `prolip report` makes its page, go into its folder as eval.json (test) or
    eval-val.json.
    """

    data: Path = Path("data/emoji")
    """Emoji shards, as `prolip data build emoji` writes them."""
    split: Split = "test"
    """`val` to choose settings, `test` to report."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Writes report.html into a run's folder, one self-contained file, from its eval.json and metrics.jsonl."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    data: Path = Path("data/emoji")
    """The shards that were evaluated."""
