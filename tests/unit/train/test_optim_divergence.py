"""A step whose loss or gradient is not finite changes nothing, and the error names the step and the terms."""

import dataclasses
import math
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from tests.support.ranks import answer, asked_ranks
from tests.support.small_step import LOSS, model_of, run_of, step_of
from torch.distributed.tensor import DTensor

from prolip.distributed import Peers, Ranks
from prolip.losses import LossTerms, ProlipLoss
from prolip.train.loop import take_step
from prolip.train.optim import Divergence, EmaConfig
from prolip.train.parallel import ParallelConfig, share_model

GOOD_STEPS = 2


class Poisoned:
    """The loss, of which one term is not finite in the third call."""

    def __init__(self, loss):
        self.loss, self.calls = loss, 0

    def __call__(self, output):
        self.calls += 1
        terms = self.loss(output)
        if self.calls != GOOD_STEPS + 1:
            return terms
        return terms._replace(vib=terms.vib + torch.nan, total=terms.total + torch.nan)


def state_of(run):
    """Copies of weights, averages, moments and step counts."""
    averages = [] if run.ema is None else list(run.ema.state_dict().values())
    moments = [tensor for state in run.optimizer.state.values() for tensor in state.values()]
    tensors = [*run.model.parameters(), *averages, *moments]
    return [(one.to_local() if isinstance(one, DTensor) else one).detach().clone() for one in tensors]


def poisoned_run(batch, **changes):
    """A run before the step that diverges."""
    run = run_of(model_of(), **changes)
    run.loss = Poisoned(run.loss)
    for _ in range(GOOD_STEPS):
        take_step(run, cast(Any, batch))
    return run


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulate": 3}, {"precision": "bf16", "ema": EmaConfig(decay=0.9)}, {"precision": "fp16"}],
    ids=["plain", "parts", "low", "scaled"],
)
def test_a_diverged_step_changes_nothing_and_is_named(changes):
    batch = step_of(8, 3)
    run = poisoned_run(batch, **changes)
    before = state_of(run)
    with pytest.raises(RuntimeError, match=r"^step 3 diverged, not finite: total, vib.*\(total nan, ppcl \d\.\d"):
        take_step(run, cast(Any, batch))
    assert all(map(torch.equal, before, state_of(run)))
    assert run.step == GOOD_STEPS


def test_the_first_of_several_diverged_steps_is_named():
    divergence, number = run_of(model_of()).divergence, torch.tensor
    for step, value in enumerate([1.0, math.inf, math.nan, 1.0], start=1):
        terms = LossTerms(*[number(value)] * len(LossTerms._fields))
        assert bool(divergence.note(step, terms, number(1.0), ~number(value).isfinite())) == (step > 1)
    with pytest.raises(RuntimeError, match=r"^step 2 diverged.*total inf"):
        divergence.check()


def test_weights_stay_fixed_until_the_divergence_check(monkeypatch):
    """As on a GPU, where steps go on until the loop checks: the steps after it are finite, and must change nothing."""
    batch = step_of(8, 3)
    run = poisoned_run(batch)
    before = state_of(run)
    with monkeypatch.context() as patched:
        patched.setattr(run.divergence, "check", lambda: None)
        norms = [take_step(run, cast(Any, batch))[2] for _ in range(3)]
    assert [bool(norm > 0) for norm in norms] == [False, True, True]
    assert all(map(torch.equal, before, state_of(run)))
    with pytest.raises(RuntimeError, match=r"^step 3 diverged, not finite: total, vib, gradient norm "):
        run.divergence.check()


def serve(rank, store, strategy, answers):
    """A rank of two, of which the second one's loss diverges at step 3."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=2)
    ranks = Ranks(rank=rank, local_rank=rank, world_size=2, device=torch.device("cpu"))
    model = model_of()
    network = share_model(model, ParallelConfig(strategy=strategy), ranks, torch.float32)
    whole = ProlipLoss(LOSS, Peers())
    run = dataclasses.replace(
        run_of(model),
        ranks=ranks,
        network=network,
        divergence=Divergence(ranks),
        loss=Poisoned(whole) if rank == 1 else whole,
    )
    batch = cast(Any, step_of(8, 3, rank=rank))
    for _ in range(GOOD_STEPS):
        take_step(run, batch)
    before = state_of(run)
    try:
        take_step(run, batch)
        told = ""
    except RuntimeError as error:
        told = str(error)
    answers.send((told, all(map(torch.equal, before, state_of(run)))))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_ranks_stop_if_one_has_a_loss_that_is_not_finite(strategy, tmp_path):
    with asked_ranks(serve, 2, tmp_path / "store", strategy) as ends:
        for end in ends:
            told, unchanged = answer(end)
            assert told.startswith("step 3 diverged, not finite: total, vib, gradient norm (total nan, ppcl ")
            assert unchanged
