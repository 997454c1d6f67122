"""Settings of the commands around a run: `prolip recipes`, `prolip train --dry-run`, `prolip runs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Assumption:
    """What GPU-hours are reckoned for."""

    gpu: str = "NVIDIA A100"
    """The card, by the name that CUDA gives it, or by enough of it."""
    mfu: float = 0.4
    """Share of the card's peak that training reaches, all operations counted; 0.3 to 0.5 is usual."""


@dataclass(frozen=True, kw_only=True)
class RecipesOptions(Assumption):
    """Lists the recipes with what they cost, or prints one as it resolves, complete."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """The recipe to print: a name of the list, or the path of a TOML file."""


@dataclass(frozen=True, kw_only=True)
class DryRunOptions(Assumption):
    """Checks a run and says what it will cost; starts nothing and writes nothing."""

    gpus: int = 1
    """Cards that the run is to have: the batch must divide among them."""


@dataclass(frozen=True, kw_only=True)
class RunsOptions:
    """Tabulates runs side by side: how far they are, how fast, and the last and the best value of chosen figures."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Runs' folders, or folders that hold them."""
    metrics: tuple[str, ...] = ()
    """Figures of metrics.jsonl, such as loss or val/NAME/top1. By default loss and the first figure of each set that
    was evaluated; the page then draws every figure."""
    format: Literal["text", "markdown", "json"] = "text"
    """How the table is written."""
    plot: Path | None = None
    """File for a page of curves, HTML without outside requests."""
