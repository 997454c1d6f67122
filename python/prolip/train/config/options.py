"""Options of `prolip recipes`, `prolip train --dry-run` and `prolip report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class DryRunOptions:
    """Check a run and estimate its cost. Nothing is started or written."""

    gpu: str = "NVIDIA A100"
    """The GPU's name in CUDA, or a part of the name that identifies it, such as H100."""
    mfu: float = 0.4
    """Share of the GPU's peak FLOPS that training reaches, including recomputation; 0.3 to 0.5 is usual."""
    gpus: int = 1
    """Number of GPUs. The batch must divide evenly among them."""


@dataclass(frozen=True, kw_only=True)
class RecipesOptions(DryRunOptions):
    """List the recipes, or print one in full and what it costs."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The recipe to print: a name from the list, or the path of a TOML file. Of several, later ones win, as in
    `prolip train`."""
    gpus: int = 32
    """Number of GPUs that share the batch, as many as the published runs had."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write a run's report.html: the results of suites that lie beside it, its curves and its configuration.

    Results are read from below the run's folder, and from `evals` if they name the run.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
