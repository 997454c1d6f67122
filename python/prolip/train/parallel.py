"""Data parallelism (DDP), sharding (FSDP2), recomputed activations and compilation.

None of them changes the numbers beyond the order of sums (docs/decisions/013-parallelism.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from prolip.distributed import Ranks
from prolip.losses import LossTerms
from prolip.models import ProLIP, ProLIPOutput
from prolip.train.config.parallel import ParallelConfig

Loss = Callable[[ProLIPOutput], LossTerms]

_GRAPHS = 256
_COMPILES_LOSS = "2.15"
"""The first torch known to compile the loss; 2.7 does not."""


def share_model(model: ProLIP, config: ParallelConfig, ranks: Ranks, dtype: torch.dtype) -> nn.Module:
    """Wrap the model for a training step. Parameters keep their names; "fsdp" makes them DTensors in place.

    Make the optimizer afterwards, from the parameters of `model`. `dtype` is that of the towers' matrix products.
    """
    towers = (model.visual, model.text)
    compiled = config.compiles(ranks.device.type)
    if compiled:
        # Towers, masked inputs, lengths of native images and the last block need more graphs than torch's default of 8.
        torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
    for tower in towers:
        tower.transformer.recompute_every = config.recompute_every
        if compiled:
            for block in tower.transformer.blocks():
                # A graph for all shapes would be slower than one for each.
                block.compile(dynamic=False)
    if ranks.world_size == 1:
        return model
    if config.strategy == "ddp":
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        # No static graph: a resumed run would add in another order (decision 013).
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    low = dtype if config.gather == "precision" and dtype != torch.float32 else None
    # Autocast chooses each operation's type, so inputs are not cast. The heads compute in single precision.
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for tower in towers:
        for block in tower.transformer.blocks():
            fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=config.reshard)
        # Each tower is an FSDP root, to be called alone. FSDP2 cannot shard the scalar scale and bias.
        fully_shard(tower, mesh=mesh)
    return model


def compile_loss(loss: Loss, config: ParallelConfig, ranks: Ranks) -> Loss:
    """If the blocks are compiled and this torch can."""
    if config.compiles(ranks.device.type) and torch.__version__ >= _COMPILES_LOSS:
        return torch.compile(loss, dynamic=False)
    return loss


def _fsdp_roots(network: nn.Module) -> list[FSDPModule]:
    return [child for child in network.children() if isinstance(child, FSDPModule)]


@contextmanager
def no_gradient_sync(network: nn.Module) -> Iterator[None]:
    """Accumulate gradients on this rank only. The next backward pass averages their sum over the ranks."""
    if isinstance(network, DistributedDataParallel):
        with network.no_sync():
            yield
        return
    for root in _fsdp_roots(network):
        root.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        for root in _fsdp_roots(network):
            root.set_requires_gradient_sync(True)


def average_whole_gradients(network: nn.Module) -> None:
    """With FSDP, over the ranks: of parameters that are not sharded."""
    if not _fsdp_roots(network):
        return
    whole = [p.grad for p in network.parameters() if p.grad is not None and not isinstance(p.grad, DTensor)]
    if not whole:
        return
    together = torch.cat([gradient.flatten() for gradient in whole])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for gradient, average in zip(whole, torch.split(together, [one.numel() for one in whole]), strict=True):
        gradient.copy_(average.view_as(gradient))
