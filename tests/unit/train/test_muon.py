"""Muon: orthogonal steps, and equal on any number of ranks."""

import pytest
import torch
from hypothesis import given, strategies as st
from tests.support.small_step import ALONE
from tests.support.threaded_ranks import Group
from torch import nn

from prolip.distributed import Ranks
from prolip.train.muon import MuonWithAdamW, orthogonalize

SHAPES = ((12, 4), (4, 12), (6, 6), (5, 9), (9, 9))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def optimizer_of(matrices, ranks=ALONE, parts=1):
    groups = [{"params": matrices, "muon": parts}]
    return MuonWithAdamW(groups, ranks, lr=0.1, weight_decay=0.3, betas=(0.9, 0.98), fused=True)


def moved(shapes, ranks=ALONE):
    """Matrices after some steps with gradients that depend on nothing but their place."""
    matrices = [nn.Parameter(normal(*shape, seed=place)) for place, shape in enumerate(shapes)]
    optimizer = optimizer_of(matrices, ranks)
    for step in range(3):
        for place, matrix in enumerate(matrices):
            matrix.grad = normal(*matrix.shape, seed=100 * step + place)
        optimizer.step()
    return [matrix.detach() for matrix in matrices]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**20), st.sampled_from([1e-6, 1.0, 1e6]))
def test_singular_values_become_about_one(rows, columns, seed, size):
    left, _, right = torch.linalg.svd(normal(rows, columns, seed=seed).double(), full_matrices=False)
    values = torch.linspace(0.1, 1.0, min(rows, columns), dtype=torch.float64)
    found = orthogonalize((size * (left * values) @ right).float()[None])[0]
    # The same singular vectors: in their basis it is diagonal.
    inside = left.mT @ found.double() @ right.mT
    assert (inside - inside.diag().diag()).abs().max() < 1e-4
    assert inside.diag().min() > 0.5
    assert inside.diag().max() < 1.25


def test_steps_are_close_to_torchs_muon():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    ours = nn.Parameter(normal(16, 40))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = optimizer_of([ours])
    expected = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        ours.grad, theirs.grad = normal(16, 40, seed=step + 1), normal(16, 40, seed=step + 1)
        optimizer.step()
        expected.step()
    # Torch's orthogonalises in bfloat16.
    assert (ours - theirs).norm() < 0.02 * (theirs - normal(16, 40)).norm()


def test_a_fused_projection_is_three_matrices():
    fused = nn.Parameter(normal(12, 4))
    parts = [nn.Parameter(part.clone()) for part in fused.detach().chunk(3)]
    optimizers = [optimizer_of([fused], parts=3), optimizer_of(parts)]
    fused.grad = normal(12, 4, seed=1)
    for part, gradient in zip(parts, fused.grad.chunk(3), strict=True):
        part.grad = gradient.clone()
    for optimizer in optimizers:
        optimizer.step()
    torch.testing.assert_close(fused.detach(), torch.cat([part.detach() for part in parts]))


@pytest.mark.parametrize("world_size", [2, 3])
def test_parameters_on_several_ranks_equal_a_single_process(world_size, monkeypatch):
    group = Group(world_size)
    monkeypatch.setattr("prolip.train.muon.dist", group)

    def of_rank(rank):
        ranks = Ranks(rank=rank, local_rank=rank, world_size=world_size, device=torch.device("cpu"))
        return moved(SHAPES, ranks)

    alone = moved(SHAPES)
    for found in group.run(of_rank):
        assert all(torch.equal(ours, expected) for ours, expected in zip(found, alone, strict=True))
