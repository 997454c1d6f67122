"""Muon for the matrices of the transformer blocks, and AdamW for all other parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
_NUMBERS_PER_ROUND = 8_000_000
_Matrices = list[tuple[Tensor, dict[str, Any]]]
"""With their groups."""


class MuonWithAdamW(torch.optim.AdamW):
    """AdamW, but some parameter groups move along their orthogonalised momentum (Jordan et al., 2024).

    A group's key `muon` is the number of matrices in each parameter: 3 for a fused projection, [3 W, W]; 0 for AdamW. A
    matrix of A x B moves by `lr` times 0.2 sqrt(max(A, B)) times a matrix of singular values near 1, about as far as
    with AdamW (arXiv:2502.16982, section 2.2). Each rank orthogonalises its share.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], ranks: Ranks, dtype: torch.dtype = torch.float32, **settings: Any
    ) -> None:
        """`dtype` is that of the products that orthogonalise, `settings` are AdamW's."""
        super().__init__(groups, **settings)
        self._ranks = ranks
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient, unless `found_inf` is 1 (see `step_where`)."""
        assert closure is None, "no closure"
        matrices = [
            (matrix, group)
            for group in self.param_groups
            if group["muon"]
            for matrix in group["params"]
            if matrix.grad is not None
        ]
        matrices.sort(key=lambda pair: pair[0].shape)  # so that ranks get matrices of one size
        taken: Tensor | float = 1.0 - getattr(self, "found_inf", 0.0)
        for together in _rounds(matrices, self._ranks.world_size):
            directions = [self._direction(matrix, taken) for matrix, _ in together]
            for (matrix, group), orthogonal in zip(together, self._orthogonal(directions, together), strict=True):
                rows, columns = matrix.shape
                size = _RMS * math.sqrt(max(rows // group["muon"], columns))
                update = _sharded_like(orthogonal.to(matrix.dtype), matrix) * size
                matrix.mul_(1.0 - group["lr"] * group["weight_decay"] * taken).sub_(update * (group["lr"] * taken))
        gradients = [matrix.grad for matrix, _ in matrices]
        for matrix, _ in matrices:
            matrix.grad = None  # so that AdamW skips it
        super().step()
        for (matrix, _), gradient in zip(matrices, gradients, strict=True):
            matrix.grad = gradient

    def _orthogonal(self, directions: Sequence[Tensor], matrices: _Matrices) -> list[Tensor]:
        """Each rank orthogonalises every `world_size`-th; all get all results."""
        counts = [group["muon"] for _, group in matrices]
        rank, world_size = self._ranks.rank, self._ranks.world_size
        own = _orthogonalize_all(directions[rank::world_size], counts[rank::world_size], self._dtype)
        if world_size == 1:
            return own
        sizes = [[direction.numel() for direction in directions[other::world_size]] for other in range(world_size)]
        longest = max(map(sum, sizes))
        sent = directions[0].new_zeros(longest, dtype=self._dtype)
        if own:
            sent[: sum(sizes[rank])] = torch.cat([matrix.flatten() for matrix in own])
        gathered = sent.new_empty(world_size * longest)
        dist.all_gather_into_tensor(gathered, sent)
        orthogonal = list(directions)
        for other, of_rank in enumerate(gathered.view(world_size, longest)):
            orthogonal[other::world_size] = torch.split(of_rank[: sum(sizes[other])], sizes[other])
        return [flat.view(direction.shape) for flat, direction in zip(orthogonal, directions, strict=True)]

    def _direction(self, matrix: Tensor, taken: Tensor | float) -> Tensor:
        """Add the gradient to the momentum; returns Nesterov's direction, whole."""
        state = self.state[matrix]
        if not state:
            state["step"] = torch.zeros((), device=matrix.device)
            state["exp_avg"] = torch.zeros_like(matrix)
        assert matrix.grad is not None, "only such matrices are moved"
        # In a skipped step a gradient is not finite, and must not reach the sums below, even times 0.
        gradient = matrix.grad.nan_to_num(0.0, 0.0, 0.0)
        average: Tensor = state["exp_avg"]
        average.lerp_(gradient, torch.as_tensor((1 - MOMENTUM) * taken, dtype=gradient.dtype, device=gradient.device))
        state["step"] += taken
        direction = gradient.lerp(average, MOMENTUM)
        return direction.full_tensor() if isinstance(direction, DTensor) else direction


def _rounds(matrices: _Matrices, num_ranks: int) -> Iterator[_Matrices]:
    """Divide matrices into rounds of one exchange each: at least one per rank, up to 8 million numbers."""
    together: _Matrices = []
    for first in range(0, len(matrices), num_ranks):
        more = matrices[first : first + num_ranks]
        if together and sum(matrix.numel() for matrix, _ in together + more) > _NUMBERS_PER_ROUND:
            yield together
            together = []
        together = together + more
    if together:
        yield together


def _orthogonalize_all(directions: Sequence[Tensor], counts: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """Parameters of `counts` matrices each, in `dtype`, those of one size together."""
    split = [
        matrix.view(count, -1, matrix.shape[-1]).to(dtype) for matrix, count in zip(directions, counts, strict=True)
    ]
    by_size: dict[torch.Size, list[int]] = {}
    for place, stack in enumerate(split):
        by_size.setdefault(stack.shape[1:], []).append(place)
    for places in by_size.values():
        stacks = [split[place] for place in places]
        orthogonal = torch.split(orthogonalize(torch.cat(stacks)), [len(stack) for stack in stacks])
        for place, stack in zip(places, orthogonal, strict=True):
            split[place] = stack
    return [stack.reshape(matrix.shape) for stack, matrix in zip(split, directions, strict=True)]


def orthogonalize(matrices: Tensor) -> Tensor:
    """Replace singular values by about 1, [N, A, B]: between 0.68 and 1.14, unless they are far below the largest.

    Five Newton-Schulz iterations with the coefficients of Jordan et al. (kellerjordan.github.io/posts/muon), in the
    type of `matrices`.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    orthogonal: Tensor = x.mT if is_tall else x
    return orthogonal


def _sharded_like(whole: Tensor, matrix: Tensor) -> Tensor:
    """This rank's part of `whole` as a sharded tensor, without communication."""
    if not isinstance(matrix, DTensor):
        return whole
    mesh = matrix.device_mesh
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=matrix.placements)
