"""Track the best value of the metric that selects the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from prolip.checkpoint import Best, CheckpointError, read_best
from prolip.distributed import Ranks
from prolip.errors import UserError
from prolip.losses import LossTerms
from prolip.train.config import TrainConfig
from prolip.train.logging.log import GROUPS
from prolip.train.validation import metric_names

LOSSES = ("loss", *(name for name in LossTerms._fields if name != "total"))
_LOW_IS_BEST = ("_rank", "risk_coverage", "calibration_error", "data_wait_share", "grad_norm", "seconds")


def lower_is_better(metric: str) -> bool:
    """Whether the best value of a metric is the smallest one."""
    return metric in LOSSES or metric.endswith(_LOW_IS_BEST) or "_pearson" in metric


def check_metric(config: TrainConfig) -> None:
    """Check, before the run starts, that it can have the metric that selects its best checkpoint.

    Raises:
        UserError: no row has such a metric.
    """
    metric = config.keep_best
    if metric is None or metric.startswith(("loader/", "bad/")):  # the loader names its stages and reasons
        return
    known = [*LOSSES, *(name for names in GROUPS.values() for name in names)]
    known += [name for job in config.validation.jobs for name in metric_names(job, config.model)]
    if metric not in known:
        raise UserError(f"keep_best is {metric!r}: it must be one of {', '.join(known)}")


class BestSoFar:
    """Remembers the best value of a metric so far. All ranks have one, with equal values.

    Args:
        metric: name of the metric in its row; None to track nothing.
        better: whether the largest or the smallest value is the best; None for what `lower_is_better` says.
        folder: the run's checkpoints, which may have a best one from before a restart.
        ranks: the processes.
        step: steps done.
    """

    def __init__(
        self, metric: str | None, better: Literal["max", "min"] | None, folder: Path, ranks: Ranks, step: int
    ) -> None:
        lowest = better == "min" or (better is None and metric is not None and lower_is_better(metric))
        self._metric, self._sign = metric, -1.0 if lowest else 1.0
        self._ranks = ranks
        kept = ranks.broadcast(_kept_before(folder, metric, step) if ranks.rank == 0 and metric is not None else None)
        self._value = -math.inf if kept is None else self._sign * kept

    def beaten_by(self, row: Mapping[str, float]) -> Best | None:
        """Update the best value from a row; returns it if it has improved, else None. All ranks call this.

        Rank 0's value counts, because times and speeds differ between ranks, and all must save at the same step.

        Raises:
            UserError: the row has metrics of the same kind, but not this one.
        """
        if self._metric is None:
            return None
        kind = self._metric.rpartition("/")[0]
        if self._metric not in row:
            if "loss" in row if not kind else any(name.startswith(f"{kind}/") for name in row):
                raise UserError(f"keep_best is {self._metric!r}: it must be one of {', '.join(row)}")
            return None
        value = self._ranks.broadcast(row[self._metric])
        if not self._sign * value > self._value:
            return None
        self._value = self._sign * value
        return Best(metric=self._metric, value=value)


def _kept_before(folder: Path, metric: str, step: int) -> float | None:
    try:
        found = read_best(folder)
    except CheckpointError:  # it is damaged, so the next one replaces it
        return None
    return found[1].value if found is not None and found[0] <= step and found[1].metric == metric else None
