"""Several ranks save what one process reads, and a failure on one rank reaches all."""

import dataclasses
import os

import pytest
import torch
import torch.distributed as dist
from tests.support.forkserver import FORKSERVER
from tests.support.refusals import refusal_of
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from prolip.checkpoint import (
    Best,
    CheckpointError,
    Notes,
    RunLock,
    Saver,
    agree_on_checkpoint,
    folder as folders,
    list_checkpoints,
    load_checkpoint,
    rng_tensors,
    run_tensors,
)
from prolip.distributed import Ranks

NOTES = Notes(step=1, world_size=2, elapsed_s=0.0, cursor={}, config="", model_config={})


def make(*, sharded):
    """A model that took a step, the same on all ranks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 7), nn.Linear(7, 3))  # sizes that do not divide among the ranks
    model.register_parameter("scale", nn.Parameter(torch.tensor(2.0)))
    if sharded:
        for layer in model:
            fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    (model(torch.ones(5, 40)).square().sum() * model.scale).backward()
    optimizer.step()
    return model, optimizer


def as_rank(rank, folder):
    """One of two ranks: saves a whole model, a sharded one, and fails."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=2)
    ranks = Ranks(rank=rank, local_rank=rank, world_size=2, device=torch.device("cpu"))
    for sharded in (False, True):
        model, optimizer = make(sharded=sharded)
        torch.manual_seed(100 + rank)
        with Saver(folder / f"sharded-{sharded}", ranks, keep=2) as saver:
            for step in (1, 2, 3):
                best = Best(metric="m", value=1.0) if step == 1 else None
                saver.save(
                    dataclasses.replace(NOTES, step=step), run_tensors(model, optimizer) | rng_tensors(ranks), best
                )
        # Back into a sharded model, from either.
        other, its_optimizer = make(sharded=True)
        expected = {name: tensor.clone() for name, tensor in run_tensors(other, its_optimizer).items()}
        for tensor in run_tensors(other, its_optimizer).values():
            tensor.detach().zero_()
        saved = agree_on_checkpoint(folder / f"sharded-{sharded}", "auto", ranks)
        saved.restore(other, its_optimizer)
        for name, tensor in run_tensors(other, its_optimizer).items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-7, msg=name)
        torch.manual_seed(9)
        saved.restore_rng(ranks)
        assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(100 + rank).get_state())

    # Folders of one machine each: nothing is committed, and a run does not start.
    folders.VISIBLE_SECONDS = 0.3
    saver = Saver(folder / f"of-{rank}", ranks, keep=2)
    saver.save(NOTES, run_tensors(model, optimizer))
    with pytest.raises(CheckpointError, match="all ranks must see the same folder"):
        saver.wait()
    with refusal_of("out"):
        RunLock(folder / f"of-{rank}", ranks)
    with RunLock(folder / "shared", ranks):
        pass

    def full_disk(descriptor):
        raise OSError("no space left")

    if rank == 1:
        os.fsync = full_disk
    saver = Saver(folder / "full", ranks, keep=2)
    saver.save(NOTES, run_tensors(model, optimizer))
    with pytest.raises(CheckpointError, match="rank 1: no space left"):
        saver.wait()
    # What is wrong with the choice is told on all ranks, and nobody waits.
    with pytest.raises(CheckpointError, match="resume"):
        agree_on_checkpoint(folder / "full", "7", ranks)
    (folder / f"done-{rank}").touch()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two ranks saved."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [FORKSERVER.Process(target=as_rank, args=(rank, folder), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=200)
        process.kill()
    assert {path.name for path in folder.glob("done-*")} == {"done-0", "done-1"}
    return folder


@pytest.mark.parametrize("sharded", [False, True])
def test_one_process_reads_a_checkpoint_of_two_ranks(folder, sharded):
    model, optimizer = make(sharded=False)
    expected = run_tensors(model, optimizer)
    path = list_checkpoints(folder / f"sharded-{sharded}")[0]
    saved = load_checkpoint(path)
    assert saved.step == 3
    found = {f"model.{name}": tensor for name, tensor in saved.model().items()}
    found |= {f"optimizer.{name}": tensor for name, tensor in saved.optimizer().items()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("sharded", [False, True])
def test_each_rank_writes_a_part_and_nothing_is_written_twice(folder, sharded):
    model, optimizer = make(sharded=False)
    wanted = sum(tensor.nbytes for tensor in run_tensors(model, optimizer).values()) + 2 * torch.get_rng_state().nbytes
    path = list_checkpoints(folder / f"sharded-{sharded}")[0]
    sizes = [file.stat().st_size for file in sorted(path.glob("*.distcp"))]
    assert len(sizes) == 2
    assert min(sizes) > 0.2 * sum(sizes)
    heads = 2048 * (18 if sharded else 12) * 2  # what torch.save puts around each tensor
    assert wanted < sum(sizes) < wanted + heads


@pytest.mark.parametrize("name", ["full", "of-0", "of-1"])
def test_a_save_that_fails_on_one_rank_leaves_no_checkpoint(folder, name):
    assert list_checkpoints(folder / name) == []
