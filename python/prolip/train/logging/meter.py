"""Turn training steps into rows of metrics."""

from __future__ import annotations

import logging
import time
from collections import Counter

import torch
import torch.distributed as dist
from torch import Tensor

from prolip.data import BatchLoader, LoaderStats
from prolip.data.device import DeviceBatches
from prolip.distributed import Ranks
from prolip.losses import LossTerms
from prolip.models import ProLIPOutput
from prolip.train.config import TrainConfig
from prolip.train.cost import peak_flops, step_flops
from prolip.train.optim import LossScaler

log = logging.getLogger(__name__)


def seconds_at_peak(config: TrainConfig, ranks: Ranks) -> float | None:
    """Seconds of a mean step at the device's peak, without recomputation; None if the peak is unknown.

    Divided by the measured seconds, it is the model FLOPs utilisation (MFU).
    """
    if config.log.peak_tflops is not None:
        peak: float | None = config.log.peak_tflops * 1e12
    else:
        on_gpu = ranks.device.type == "cuda"
        peak = peak_flops(torch.cuda.get_device_name(ranks.device), config.precision) if on_gpu else None
    if peak is None:
        return None
    return step_flops(config, ranks.world_size).useful / peak


class Meter:
    """Averages metrics over steps; each row covers the steps since the row before. One meter per rank.

    `samples` counts those of all ranks; `step`, `samples` and `elapsed_s` are those before a restart.
    """

    def __init__(
        self,
        ranks: Ranks,
        batches: DeviceBatches,
        loader: BatchLoader,
        *,
        step: int,
        samples: int,
        elapsed_s: float,
        at_peak: float | None = None,
        scaler: LossScaler | None = None,
    ) -> None:
        self.elapsed_s = elapsed_s
        """Of training, up to the last row."""
        self._ranks, self._batches, self._loader = ranks, batches, loader
        self._samples, self._at_peak, self._scaler = samples, at_peak, scaler
        self._sums = torch.zeros(len(LossTerms._fields), device=ranks.device)
        self._step, self._since, self._waited = step, time.perf_counter(), 0.0
        self._stages: dict[str, float] = {}
        self._bad: Counter[str] = Counter()

    def add(self, terms: LossTerms) -> None:
        """Of a step, on the device."""
        self._sums += torch.stack(terms).detach()

    def row(self, step: int, samples: int, output: ProLIPOutput, grad_norm: Tensor, lr: float) -> dict[str, float]:
        """A row of metrics, but for times and speeds the same on every rank. All ranks call this.

        Loss terms are means over steps and ranks; the arguments are the last step's. `loader/STAGE` is the mean number
        of threads per rank in a stage, `loader/ready` the number of finished batches in the queue. `bad/REASON` counts
        the unreadable samples of these steps over all ranks.
        """
        seconds, steps = self._lap(), step - self._step
        stats = self._loader.stats()
        stages, bad = self._stage_seconds(stats), Counter(stats.bad) - self._bad
        loader = {f"loader/{name}": (value - self._stages.get(name, 0.0)) / seconds for name, value in stages.items()}
        self._stages, self._bad = stages, Counter(stats.bad)
        waited = self._batches.wait_seconds
        on_device = dict(zip(LossTerms._fields, self._sums / steps, strict=True))
        on_device |= {f"{name}_uncertainty": getattr(output, name).total_var.mean() for name in ("image", "text")}
        on_host = {
            "data_wait_share": (waited - self._waited) / seconds,
            **loader,
            "loader/ready": float(stats.ready),
            "bad": float(bad.total()),
        }
        values = torch.cat([torch.stack([*on_device.values()]).detach(), self._sums.new_tensor([*on_host.values()])])
        if self._ranks.world_size > 1:
            dist.all_reduce(values)
            values /= self._ranks.world_size
        mean = dict(zip([*on_device, *on_host], values.tolist(), strict=True))
        terms = {name: mean.pop(name) for name in LossTerms._fields}
        self._step, self._waited = step, waited
        self._sums.zero_()
        self.elapsed_s += seconds
        rate, self._samples = (samples - self._samples) / seconds, samples
        row = {"step": step, "samples": samples, "lr": lr, "loss": terms.pop("total"), **terms}
        row["logit_scale"] = output.logit_scale.item()
        if output.logit_bias is not None:
            row["logit_bias"] = output.logit_bias.item()
        if self._scaler is not None:
            row["loss_scale"] = self._scaler.scale.item()
        row |= {
            "grad_norm": grad_norm.item(),
            "samples_per_s": rate,
            "samples_per_s_per_device": rate / self._ranks.world_size,
        }
        if self._at_peak is not None:
            row["mfu"] = self._at_peak * steps / seconds
        some_are_bad = mean.pop("bad") > 0
        row |= mean
        if some_are_bad:
            of_ranks = self._ranks.all_gather((bad, self._bad.total(), stats.bad_samples[-1:]))
            for rank, (of_rank, total, named) in enumerate(of_ranks):
                if of_rank and self._ranks.rank == 0:  # the only one whose warnings are shown
                    log.warning("rank %d: %d unreadable samples so far, such as %s", rank, total, *named)
            reasons = sum((of_rank for of_rank, _, _ in of_ranks), Counter())
            row |= {f"bad/{reason}": count for reason, count in sorted(reasons.items())}
        if self._ranks.device.type == "cuda":
            peak = torch.tensor(torch.cuda.max_memory_allocated(self._ranks.device) / 2**30, device=self._ranks.device)
            if self._ranks.world_size > 1:
                dist.all_reduce(peak, op=dist.ReduceOp.MAX)
            row["gpu_peak_gib"] = peak.item()
        return row | {"time_s": self.elapsed_s}

    def pause(self) -> None:
        """Discard the time since the last row, which was not for training."""
        self._lap()
        self._stages = self._stage_seconds(self._loader.stats())

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds

    @staticmethod
    def _stage_seconds(stats: LoaderStats) -> dict[str, float]:
        return {name: stage.seconds for name, stage in stats.stages.items()}
