"""Settings of how processes share the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from prolip.errors import check_at_least
from prolip.store.typed_tables import RESULTS


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How processes share the model, and how its blocks run."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every process has the whole model, and gradients are averaged. `fsdp` (FSDP2): every process has a shard
    of each tensor, its gradient and its moments; the tensors of a block are gathered when it runs."""
    reshard: bool = True
    """With `fsdp`: free the gathered tensors of a block after its forward pass and gather them again for the backward
    pass. False keeps them, for more memory and less communication."""
    gather: Literal["fp32", "precision"] = field(default="precision", metadata=RESULTS)
    """With `fsdp`: dtype in which blocks are gathered, fp32 or that of `precision`. The latter is the dtype of matrix
    products anyway, but norms and biases are rounded too. Gradients are always summed in fp32."""
    recompute_every: int = 0
    """Recompute every n-th block of a tower in the backward pass instead of keeping its activations; 0 for none."""
    compile: bool | None = None
    """Compile the towers' blocks and the loss with torch.compile (the loss from torch 2.15 on). None compiles on GPUs
    only: on a CPU that needs a C++ compiler, and the first steps take long."""

    def __post_init__(self) -> None:
        check_at_least(0, **{"parallel.recompute_every": self.recompute_every})

    def compiles(self, device_type: str) -> bool:
        """On a device of this type, "cpu" or "cuda"."""
        return device_type == "cuda" if self.compile is None else self.compile
