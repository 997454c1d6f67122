"""The loss over W ranks is the loss of one process on the concatenated batch: values and gradients, W = 1..5."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from prolip.distributed import Ranks, Ring, start, stop
from prolip.gaussian import Gaussian
from prolip.losses import LossConfig, ProlipLoss
from prolip.models import ProLIPOutput

MAX_RANKS = 5
BATCH, MASKED, SLOTS, DIM = 3, 2, 2, 6
CONFIG = LossConfig(
    ppcl_weight=0.7,
    inclusion_weight=0.3,
    masked_inclusion_weight=0.2,
    vib_weight=0.1,
    inclusion_form="exact",
    inclusion_scale=3.0,
    vib_form="exact",
)
Leaves = dict[str, Tensor]


def leaves_of(rank: int, seed: int) -> Leaves:
    """What one rank's towers would give, drawn from (rank, seed), and the two scalars that all ranks share."""
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    shapes = {
        "image": (BATCH, DIM),
        "text": (SLOTS, BATCH, DIM),
        "masked_image": (MASKED, DIM),
        "masked_text": (SLOTS, MASKED, DIM),
    }
    found = {}
    for name, shape in shapes.items():
        found[f"{name}_mean"] = torch.randn(shape, generator=generator, dtype=torch.float64)
        found[f"{name}_log_var"] = torch.randn(shape, generator=generator, dtype=torch.float64) - 3
    found["scale"] = torch.tensor(1.5, dtype=torch.float64)
    found["bias"] = torch.tensor(-2.0, dtype=torch.float64)
    return {name: value.requires_grad_() for name, value in found.items()}


def output_of(leaves: Leaves) -> ProLIPOutput:
    towers = {
        name: Gaussian(torch.nn.functional.normalize(leaves[f"{name}_mean"], dim=-1), leaves[f"{name}_log_var"])
        for name in ("image", "text", "masked_image", "masked_text")
    }
    return ProLIPOutput(
        towers["image"],
        towers["text"],
        towers["masked_image"],
        towers["masked_text"],
        leaves["scale"].exp(),
        leaves["bias"],
    )


def joined(ranks: list[Leaves]) -> Leaves:
    """All ranks' items in one batch, whose first items are those that were masked, as the loss expects."""
    whole = {name: ranks[0][name] for name in ("scale", "bias")}
    for tower in ("image", "text"):
        for part in ("mean", "log_var"):
            name = f"{tower}_{part}"
            first = [leaves[name][..., :MASKED, :] for leaves in ranks]
            rest = [leaves[name][..., MASKED:, :] for leaves in ranks]
            whole[name] = torch.cat([*first, *rest], -2)
            whole[f"masked_{name}"] = torch.cat([leaves[f"masked_{name}"] for leaves in ranks], -2)
    return whole


def run_rank(rank: int, folder: Path) -> None:
    """For each world size this rank takes part in, a file with its terms and its gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=MAX_RANKS)
    for world_size in range(1, MAX_RANKS + 1):
        group = dist.new_group(list(range(world_size)))
        if rank >= world_size:
            continue
        leaves = leaves_of(rank, seed=world_size)
        terms = ProlipLoss(CONFIG, Ring(group))(output_of(leaves))
        terms.total.backward()
        found = {"terms": torch.stack(terms).detach(), **{name: leaf.grad for name, leaf in leaves.items()}}
        torch.save(found, folder / f"{world_size}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of five processes that ran once, in groups of one to five."""
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "prolip.losses", "prolip.models"])
    processes = [context.Process(target=run_rank, args=(rank, folder)) for rank in range(MAX_RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * MAX_RANKS
    return folder


@pytest.mark.parametrize("world_size", range(1, MAX_RANKS + 1))
def test_ranks_equal_one_process(folder: Path, world_size: int) -> None:
    ranks = [leaves_of(rank, seed=world_size) for rank in range(world_size)]
    for leaves in ranks[1:]:
        leaves.update(scale=ranks[0]["scale"], bias=ranks[0]["bias"])
    terms = ProlipLoss(CONFIG, Ring())(output_of(joined(ranks)))
    terms.total.backward()
    found = [torch.load(folder / f"{world_size}-{rank}.pt", weights_only=True) for rank in range(world_size)]
    mean_over_ranks = torch.stack([of_rank["terms"] for of_rank in found]).mean(0)
    torch.testing.assert_close(mean_over_ranks, torch.stack(terms).detach(), rtol=1e-13, atol=1e-14)
    # A data-parallel wrapper averages: a rank's own gradient counts 1 / W, the shared scalars' are averaged.
    for of_rank, leaves in zip(found, ranks, strict=True):
        for name in leaves.keys() - {"scale", "bias"}:
            torch.testing.assert_close(of_rank[name] / world_size, leaves[name].grad, rtol=1e-11, atol=1e-14)
    for name in ("scale", "bias"):
        averaged = torch.stack([of_rank[name] for of_rank in found]).mean()
        torch.testing.assert_close(averaged, ranks[0][name].grad, rtol=1e-11, atol=1e-14)


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    cpu = torch.device("cpu")
    assert start("cpu") == Ranks(rank=0, local_rank=0, world_size=1, local_world_size=1, device=cpu)
    assert Ring.from_env().world_size == 1
    stop()
    with pytest.raises(ValueError, match="device is 'tpu'"):
        start("tpu")
