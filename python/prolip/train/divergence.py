"""Stops a run whose loss or gradient is no longer finite, before the optimizer moves."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from prolip.distributed import Ranks
from prolip.losses import LossTerms


class Divergence:
    """The first step that diverged, recorded on the device.

    To read a number from a GPU, the host must wait for it. So a step records whether it diverged, and what its numbers
    were, without reading them; from then on the optimizer must not move (`prolip.train.optim.step_where`). The host
    reads the record where it waits for the device anyway, and finds the weights as they were before that step. The
    alternative, torch._assert_async, would end the process with a device-side assert, which names neither step nor
    terms.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._record = torch.zeros(2 + len(LossTerms._fields), dtype=torch.float64, device=ranks.device)
        """Step (from 1; 0 if none diverged), loss terms, gradient norm."""

    def note(self, step: int, terms: LossTerms, grad_norm: Tensor, diverged: Tensor) -> Tensor:
        """Record `step` if `diverged`, a scalar; returns whether this or an earlier step did, on the device."""
        numbers = torch.stack([*terms, grad_norm]).detach().to(self._record.dtype)
        record = torch.cat([self._record.new_full((1,), step), numbers])
        self._record = torch.where(diverged & (self._record[0] == 0), record, self._record)
        return self._record[0] > 0

    def check(self) -> None:
        """Raise if a step diverged on any rank. All ranks call this after the same step.

        Raises:
            RuntimeError: names the step, what is not finite, and all terms (means over the ranks that diverged there).
        """
        records = self._record[None]
        if self._ranks.world_size > 1:
            gathered = self._record.new_empty(self._ranks.world_size * len(self._record))
            dist.all_gather_into_tensor(gathered, self._record)
            records = gathered.view(self._ranks.world_size, -1)
        diverged = [record for record in records.tolist() if record[0] > 0]
        if not diverged:
            return
        step = min(record[0] for record in diverged)
        of_step = [record[1:] for record in diverged if record[0] == step]
        means = [sum(numbers) / len(of_step) for numbers in zip(*of_step, strict=True)]
        named = dict(zip([*LossTerms._fields, "gradient norm"], means, strict=True))
        wrong = ", ".join(name for name, number in named.items() if not math.isfinite(number))
        listed = ", ".join(f"{name} {number:.6g}" for name, number in named.items())
        raise RuntimeError(f"step {step:.0f} diverged, not finite: {wrong} ({listed})")
