"""Muon for the matrices of the transformer blocks, and AdamW for all other parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from prolip.distributed import Ranks

MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_RMS = 0.2


class MuonWithAdamW(torch.optim.AdamW):
    """AdamW, but some parameter groups move along their orthogonalised momentum (Jordan et al., 2024).

    The key `muon` of a group says how many matrices each of its parameters holds: 3 for a fused projection of queries,
    keys and values, [3 W, W]; 0 for AdamW.

    A matrix of A x B moves by `lr` times 0.2 sqrt(max(A, B)) times a matrix whose singular values are about 1. AdamW's
    steps have about that size, so both use one learning rate and one weight decay (arXiv:2502.16982, section 2.2).
    Each rank orthogonalises its share.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], ranks: Ranks, **settings: Any) -> None:
        """Prepare the optimizer. `groups` have the key "muon"; `settings` are those of AdamW."""
        super().__init__(groups, **settings)
        self._ranks = ranks

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient, unless `found_inf` is 1 (see `step_where`).

        Args:
            closure: not supported.
        """
        assert closure is None, "no closure"
        matrices = [
            (matrix, group)
            for group in self.param_groups
            if group["muon"]
            for matrix in group["params"]
            if matrix.grad is not None
        ]
        matrices.sort(key=lambda pair: pair[0].shape)  # ranks then get matrices of the same size
        num_ranks = self._ranks.world_size
        for first in range(0, len(matrices), num_ranks):
            self._move(matrices[first : first + num_ranks])
        gradients = [matrix.grad for matrix, _ in matrices]
        for matrix, _ in matrices:
            matrix.grad = None  # so that AdamW skips it
        super().step()
        for (matrix, _), gradient in zip(matrices, gradients, strict=True):
            matrix.grad = gradient

    def _move(self, matrices: Sequence[tuple[Tensor, dict[str, Any]]]) -> None:
        """Move some matrices, at most one per rank: each rank orthogonalises one, and sends it to the others."""
        skipped: Tensor | float = getattr(self, "found_inf", 0.0)
        taken = 1.0 - skipped
        directions = [_whole(self._direction(matrix, taken)) for matrix, _ in matrices]
        sizes = [direction.numel() for direction in directions]
        moves = directions[0].new_zeros(sum(sizes))
        parts = torch.split(moves, sizes)
        if self._ranks.rank < len(directions):
            own = directions[self._ranks.rank]
            parts[self._ranks.rank].copy_(_orthogonal_move(own, matrices[self._ranks.rank][1]["muon"]).flatten())
        if self._ranks.world_size > 1:
            dist.all_reduce(moves)
        for (matrix, group), move in zip(matrices, parts, strict=True):
            lr = group["lr"]
            update = _sharded_like(move.view(matrix.shape), matrix)
            matrix.mul_(1.0 - lr * group["weight_decay"] * taken).sub_(update * (lr * taken))

    def _direction(self, matrix: Tensor, taken: Tensor | float) -> Tensor:
        """Add the gradient to the momentum; returns Nesterov's direction."""
        state = self.state[matrix]
        if not state:
            state["step"] = torch.zeros((), device=matrix.device)
            state["exp_avg"] = torch.zeros_like(matrix)
        assert matrix.grad is not None, "only such matrices are moved"
        # If the step is skipped, a gradient is not finite. It must not reach the sums below, even times 0.
        gradient = matrix.grad.nan_to_num(0.0, 0.0, 0.0)
        average: Tensor = state["exp_avg"]
        average.add_((gradient - average) * ((1 - MOMENTUM) * taken))
        state["step"] += taken
        return gradient.lerp(average, MOMENTUM)


def _orthogonal_move(direction: Tensor, parts: int) -> Tensor:
    """Return the move of a parameter of `parts` matrices at a learning rate of 1, [A, B]; about as large as AdamW's."""
    rows, columns = direction.shape
    size = _RMS * math.sqrt(max(rows // parts, columns))
    return size * orthogonalize(direction.view(parts, -1, columns)).view(rows, columns)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Replace singular values by about 1, [..., A, B]: between 0.68 and 1.14, unless they are far below the largest.

    Five Newton-Schulz iterations with the coefficients of Jordan et al. (kellerjordan.github.io/posts/muon), in
    bfloat16 on a GPU and in single precision on a CPU.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(torch.bfloat16 if matrices.device.type == "cuda" else torch.float32)
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    orthogonal: Tensor = x.mT if is_tall else x
    return orthogonal.to(matrices.dtype)


def _whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor, gathered if it is sharded."""
    whole: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole


def _sharded_like(whole: Tensor, matrix: Tensor) -> Tensor:
    """Return this rank's part of `whole` as a sharded tensor, without communication."""
    if not isinstance(matrix, DTensor):
        return whole
    mesh = matrix.device_mesh
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=matrix.placements)
