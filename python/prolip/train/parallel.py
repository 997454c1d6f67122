"""How processes share one model, and what a block costs: data parallelism, sharding, recomputation, compilation.

The numbers do not depend on any of it beyond the order of sums (docs/decisions/013-parallelism.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from prolip.distributed import Ranks
from prolip.models import ProLIP
from prolip.train.config.parts import ParallelConfig

_GRAPHS = 64


def share_model(model: ProLIP, config: ParallelConfig, ranks: Ranks, dtype: torch.dtype) -> nn.Module:
    """The model as a step calls it; parameters keep their names, and under "fsdp" become DTensors in place.

    The optimiser must be made afterwards, of the parameters of `model`.

    Args:
        model: the model, the same on all ranks.
        config: how it is shared.
        ranks: who shares it; one process shares nothing.
        dtype: what the towers compute in.
    """
    towers = (model.visual, model.text)
    if config.compile:
        # All blocks have one code, which is compiled for either tower, whole and masked inputs, the rows that the last
        # block is asked for, with and without gradients: more than the 8 graphs that torch keeps of a code by itself.
        torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
    for tower in towers:
        tower.transformer.recompute_every = config.recompute_every
        if config.compile:
            for block in tower.transformer.blocks():
                block.compile()
    if ranks.world_size == 1:
        return model
    if config.strategy == "ddp":
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    low = dtype if config.gather == "precision" and dtype != torch.float32 else None
    # Autocast chooses the type of each operation, so inputs are left alone. Only blocks are gathered in a lower type:
    # the heads compute in single precision at least.
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for tower in towers:
        for block in tower.transformer.blocks():
            fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=config.reshard)
        # A tower is the root of its shards, so that it can be called alone; the factor and the bias of similarities
        # stay whole: FSDP2 cannot shard tensors of no dimension.
        fully_shard(tower, mesh=mesh)
    return model


def _shards(network: nn.Module) -> list[FSDPModule]:
    """The roots of what is sharded."""
    return [child for child in network.children() if isinstance(child, FSDPModule)]


def bare(network: nn.Module) -> nn.Module:
    """The model in what `share_model` returned."""
    return network.module if isinstance(network, DistributedDataParallel) else network


@contextmanager
def gradients_stay(network: nn.Module) -> Iterator[None]:
    """Backward passes within add to this rank's gradients, and the first one after it exchanges the sum."""
    if isinstance(network, DistributedDataParallel):
        with network.no_sync():
            yield
        return
    for root in _shards(network):
        root.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        for root in _shards(network):
            root.set_requires_gradient_sync(True)


def average_whole_gradients(network: nn.Module) -> None:
    """Averages over the ranks what sharding leaves out: gradients of the parameters that every rank holds whole."""
    if not _shards(network):
        return
    whole = [p.grad for p in network.parameters() if p.grad is not None and not isinstance(p.grad, DTensor)]
    if not whole:
        return
    together = torch.cat([gradient.flatten() for gradient in whole])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for gradient, average in zip(whole, torch.split(together, [one.numel() for one in whole]), strict=True):
        gradient.copy_(average.view_as(gradient))
