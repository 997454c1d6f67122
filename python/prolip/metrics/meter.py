"""From the steps to rows of metrics."""

from __future__ import annotations

import logging
import math
import time
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from prolip.data import LoaderStats
from prolip.distributed import Ranks
from prolip.losses import LossTerms
from prolip.models import ProLIPOutput

log = logging.getLogger(__name__)


class Waiting(Protocol):
    """What the meter reads of the batches; `prolip.device.DeviceBatches` is one."""

    @property
    def wait_seconds(self) -> float:
        """Seconds so far in which the device had no batch to work on."""


class Loader(Protocol):
    """What the meter reads of the loader."""

    def stats(self) -> LoaderStats:
        """Counts so far."""


class Meter:
    """Adds up what the steps say; each row tells of the steps since the row before. Every rank has one.

    Args:
        ranks: the processes, which all ask for rows at the same steps.
        batches: the batches that the steps take.
        loader: where they come from.
        batch_size: samples of a step, over all ranks.
        step: steps done before.
        elapsed_s: seconds of training before.
    """

    def __init__(
        self, ranks: Ranks, batches: Waiting, loader: Loader, *, batch_size: int, step: int, elapsed_s: float
    ) -> None:
        self.elapsed_s = elapsed_s
        """Seconds of training, earlier sittings included, up to the last row."""
        self._ranks, self._batches, self._loader, self._batch_size = ranks, batches, loader, batch_size
        self._sums = torch.zeros(len(LossTerms._fields), device=ranks.device)
        self._step, self._since, self._waited, self._bad = step, time.perf_counter(), 0.0, 0

    def add(self, terms: LossTerms) -> None:
        """Takes in a step's loss terms, on the device."""
        self._sums += torch.stack(terms).detach()

    def row(self, step: int, output: ProLIPOutput, grad_norm: Tensor, lr: float) -> dict[str, float]:
        """A row of metrics: loss terms are means over the steps and the ranks, the model's figures are the last step's.

        Args:
            step: steps done.
            output: of the last step.
            grad_norm: of the last step.
            lr: of the last step.

        Raises:
            RuntimeError: a loss term or the last gradient is not finite; a run that diverged must neither go on nor be
                saved.
        """
        seconds = self._lap()
        waited = self._batches.wait_seconds
        steps, first = step - self._step, self._step
        spread = [embedding.total_var.mean() for embedding in (output.image, output.text)]
        values = torch.stack([*(self._sums / steps), *spread, self._sums.new_tensor(waited - self._waited)]).detach()
        self._step, self._waited = step, waited
        self._sums.zero_()
        if self._ranks.world_size > 1:
            dist.all_reduce(values)
            values /= self._ranks.world_size
        *terms, image_uncertainty, text_uncertainty, wait_seconds = values.tolist()
        means, norm = LossTerms(*terms), grad_norm.item()
        if not all(map(math.isfinite, (*means, norm))):
            where = f"within steps {first + 1}..{step}"
            raise RuntimeError(f"loss or gradient is not finite {where}: {means}, gradient norm {norm}")
        self.elapsed_s += seconds
        self._tell_bad_samples()
        row = means._asdict()
        return {
            "step": step,
            "samples": step * self._batch_size,
            "lr": lr,
            "loss": row.pop("total"),
            **row,
            "logit_scale": output.logit_scale.item(),
            **({} if output.logit_bias is None else {"logit_bias": output.logit_bias.item()}),
            "image_uncertainty": image_uncertainty,
            "text_uncertainty": text_uncertainty,
            "grad_norm": norm,
            "samples_per_s": steps * self._batch_size / seconds,
            "data_wait_share": wait_seconds / seconds,
            "time_s": self.elapsed_s,
        }

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds

    def _tell_bad_samples(self) -> None:
        """Warns of samples that this rank could not read since it last did."""
        stats = self._loader.stats()
        bad = sum(stats.bad.values())
        if bad > self._bad:
            log.warning(
                "rank %d: %d unreadable samples so far, such as %s", self._ranks.rank, bad, stats.bad_samples[-1]
            )
        self._bad = bad
