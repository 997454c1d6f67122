"""Metrics rows from steps: means, rates, loader stages, bad samples by reason, over one rank and two."""

import math
from dataclasses import dataclass, field
from typing import cast

import pytest
import torch
from tests.support.threaded_ranks import Group

from prolip.data import LoaderStats
from prolip.distributed import Ranks
from prolip.gaussian import Gaussian
from prolip.losses import LossTerms
from prolip.models import ProLIPOutput
from prolip.train.logging import Meter


@dataclass
class Stage:
    seconds: float


@dataclass
class Source:
    """A loader and its batches that say what they are told to."""

    wait_seconds: float = 0.0
    seconds: float = 0.0
    ready: int = 3
    bad: dict[str, int] = field(default_factory=dict)
    bad_samples: tuple[str, ...] = ("a.tar: sample 7: no image",)

    @property
    def stages(self):
        return {"decode": Stage(self.seconds), "wait": Stage(0.0)}

    def stats(self):
        return cast(LoaderStats, self)


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("prolip.train.logging.meter.time.perf_counter", lambda: clock.now)
    return clock


def alone():
    return Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))


def terms(total):
    return LossTerms._make(torch.tensor(value) for value in (total, total, 0.0, 0.0, 0.0, 0.0))


def output(log_var=0.0, bias=-10.0):
    tower = Gaussian(torch.zeros(3, 4), torch.full((3, 4), log_var))
    return ProLIPOutput(tower, tower, None, None, torch.tensor(5.0), None if bias is None else torch.tensor(bias))


def meter_of(source, **changes):
    step = changes.pop("step", 0)
    return Meter(alone(), source, source, step=step, samples=8 * step, elapsed_s=10.0, **changes)


def row_of(meter, step):
    return meter.row(step, 8 * step, output(), torch.tensor(0.5), 1e-3)


def test_a_row_covers_the_steps_since_the_last_row(clock):
    source = Source()
    meter = meter_of(source, step=4)
    for loss in (1.0, 3.0):
        clock.now += 2.0
        source.seconds += 3.0
        source.wait_seconds += 0.5
        meter.add(terms(loss))
    row = meter.row(6, 48, output(math.log(2)), torch.tensor(0.5), 1e-3)
    assert row == pytest.approx(
        {
            "step": 6,
            "samples": 48,
            "lr": 1e-3,
            "loss": 2.0,
            "ppcl": 2.0,
            "inclusion": 0.0,
            "masked_image_inclusion": 0.0,
            "masked_text_inclusion": 0.0,
            "vib": 0.0,
            "logit_scale": 5.0,
            "logit_bias": -10.0,
            "image_uncertainty": 8.0,
            "text_uncertainty": 8.0,
            "grad_norm": 0.5,
            "samples_per_s": 4.0,
            "samples_per_s_per_device": 4.0,
            "data_wait_share": 0.25,
            "loader/decode": 1.5,
            "loader/wait": 0.0,
            "loader/ready": 3.0,
            "time_s": 14.0,
        }
    )
    clock.now += 1.0
    meter.add(terms(7.0))
    row = row_of(meter, 7)
    assert (row["loss"], row["samples_per_s"], row["data_wait_share"], row["loader/decode"]) == (7.0, 8.0, 0.0, 0.0)
    assert row["time_s"] == meter.elapsed_s == 15.0


def test_mfu_is_the_share_of_the_peak_flops(clock):
    meter = meter_of(Source(), at_peak=6e-3)
    clock.now = 0.03
    for _ in range(2):
        meter.add(terms(1.0))
    assert row_of(meter, 2)["mfu"] == pytest.approx(0.4)


def test_two_ranks_log_the_same_means_and_sums(clock, monkeypatch):
    group = Group(2)
    for module in ("prolip.train.logging.meter.dist", "prolip.distributed.ranks.dist"):
        monkeypatch.setattr(module, group)

    def row_of_rank(rank):
        source = Source(seconds=1.0, ready=2 * rank, bad={"decode": 1} if rank else {"read": 5, "decode": 1})
        ranks = Ranks(rank=rank, local_rank=rank, world_size=2, device=torch.device("cpu"))
        meter = Meter(ranks, source, source, step=0, samples=0, elapsed_s=-1.0)
        meter.add(terms(1.0 + rank))
        return row_of(meter, 1)

    # Each rank has a clock of its own: for rank 1, the step takes twice as long.
    monkeypatch.setattr(Meter, "_lap", lambda meter: 1.0 + meter._ranks.rank)
    rows = [dict(row) for row in group.run(row_of_rank)]
    timed = ("samples_per_s", "samples_per_s_per_device", "time_s")
    assert [[row.pop(name) for name in timed] for row in rows] == [[8.0, 4.0, 0.0], [4.0, 2.0, 1.0]]
    assert rows[0] == rows[1]
    expected = {"loss": 1.5, "loader/ready": 1.0, "loader/decode": 0.75, "bad/read": 5, "bad/decode": 2}
    assert {name: rows[0][name] for name in expected} == expected
