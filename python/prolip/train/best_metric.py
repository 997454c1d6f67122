"""Track the best value of the metric `keep_best`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

from prolip.checkpoint import Best, CheckpointError, read_best
from prolip.distributed import Ranks
from prolip.errors import UserError, check
from prolip.losses import LossTerms
from prolip.train.config import TrainConfig
from prolip.train.logging.log import GROUPS

LOSSES = ("loss", *(name for name in LossTerms._fields if name != "total"))


def check_metric(config: TrainConfig) -> None:
    """Check before the run that it can have the metric `keep_best`; else a UserError."""
    metric = config.keep_best
    if metric is None:
        return
    known = [*LOSSES, *(name for names in GROUPS.values() for name in names)]
    sets = [f"val/{job.name}/" for job in config.validation.jobs]
    # The loader names its stages and reasons.
    if metric not in known and not metric.startswith(("loader/", "bad/", *sets)):
        raise UserError("keep_best", f"must be one of {', '.join(known)}, or begin with {' or '.join(sets)}", metric)
    known_best = config.best_is is not None or metric in LOSSES
    check(known_best, "best_is", f"must say which value of {metric} is the best, max or min", config.best_is)


class BestSoFar:
    """The best value so far, over all restarts; the same on all ranks."""

    def __init__(self, config: TrainConfig, ranks: Ranks, step: int) -> None:
        self._metric, self._ranks = config.keep_best, ranks
        low = config.best_is == "min" or (config.best_is is None and config.keep_best in LOSSES)
        self._sign = -1.0 if low else 1.0
        before = None
        if ranks.rank == 0 and self._metric is not None:
            with suppress(CheckpointError):  # it is damaged, so the next one replaces it
                before = read_best(config.out / "checkpoints")
        before = ranks.broadcast(before)
        counts = before is not None and before[0] <= step and before[1].metric == self._metric
        self._value = self._sign * before[1].value if before is not None and counts else -math.inf

    def beaten_by(self, row: Mapping[str, float]) -> Best | None:
        """Update the best value from a row; returns it if it has improved, else None. All ranks call this.

        Rank 0's value counts: times and speeds differ between ranks, but all save at the same step.

        Raises:
            UserError: the row has metrics of the same kind, but not this one.
        """
        if self._metric is None:
            return None
        kind = self._metric.rpartition("/")[0]
        if self._metric not in row:
            if "loss" in row if not kind else any(name.startswith(f"{kind}/") for name in row):
                raise UserError("keep_best", f"must be one of {', '.join(row)}", self._metric)
            return None
        value = self._ranks.broadcast(row[self._metric])
        if not self._sign * value > self._value:
            return None
        self._value = self._sign * value
        return Best(metric=self._metric, value=value)
