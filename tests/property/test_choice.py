"""The fast choice of candidates equals its equation, for any number of groups, chunks and judges."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from prolip.gaussian import Gaussian, csd_logits
from prolip.losses.choice import Judge, Side, choose, choose_reference


def gaussians(*shape: int, seed: int) -> Gaussian:
    draws = torch.Generator().manual_seed(seed)
    mean, log_var = torch.randn(2, *shape, generator=draws, dtype=torch.float64)
    return Gaussian(F.normalize(mean, dim=-1), log_var - 3)


def judge_of(groups: int, candidates: int, dim: int, seed: int, weight: float, points: bool) -> tuple[Judge, Tensor]:
    """A judge, and its weighted losses of all pairs of each group, [G, N, N]."""
    image, text = gaussians(groups, candidates, dim, seed=seed), gaussians(groups, candidates, dim, seed=seed + 1)
    if points:
        image, text = Gaussian.point(image.mean), Gaussian.point(text.mean)
    scale, bias = torch.tensor([5.0 + seed % 7, -3.0], dtype=torch.float64)
    sign = 2 * torch.eye(candidates, dtype=torch.float64) - 1
    losses = -weight * F.logsigmoid(sign * csd_logits(image, text, scale, bias))
    return Judge(Side.of(image), Side.of(text), scale, bias, weight), losses


@given(
    groups=st.integers(1, 3),
    size=st.integers(1, 4),
    chunks=st.integers(1, 4),
    rest=st.integers(0, 20),
    weights=st.sampled_from([(1.0,), (-1.0,), (1.0, -1.0)]),
    points=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_the_fast_choice_is_that_of_the_equation(groups, size, chunks, rest, weights, points, seed):
    candidates = size * chunks + rest
    made = [judge_of(groups, candidates, 5, seed + 50 * place, one, points) for place, one in enumerate(weights)]
    found = choose([judge for judge, _ in made], size * chunks, chunks)
    losses = torch.stack([one for _, one in made]).sum(0)
    expected = torch.stack([choose_reference(one, size * chunks, chunks) for one in losses])
    assert found.tolist() == expected.tolist()
    ones = torch.ones(groups, candidates, dtype=torch.float64)
    assert choose([judge for judge, _ in made], size * chunks, chunks, 2 * ones).tolist() == found.tolist()


def test_later_chunks_know_what_earlier_ones_chose():
    judge, losses = judge_of(1, 60, 5, 3, 1.0, False)
    alone, joint = choose([judge], 24, 1), choose([judge], 24, 8)
    assert alone.tolist() != joint.tolist()

    def total(rows: Tensor) -> float:
        return float(losses[0][rows[0]][:, rows[0]].sum())

    assert total(joint) > total(alone), "the joint loss of what is chosen is larger"


def test_scores_are_divided_by_the_deviation():
    judge, losses = judge_of(1, 20, 5, 0, 1.0, False)
    deviation = torch.linspace(1, 3, 20, dtype=torch.float64)[None]
    best = (losses.diagonal(dim1=1, dim2=2) / deviation).topk(4).indices.sort().values
    assert choose([judge], 4, 1, deviation).tolist() == best.tolist()


def test_no_matrix_of_all_pairs_is_made_and_the_host_never_waits():
    judge, _ = judge_of(2, 640, 4, 0, 1.0, False)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        choose([judge], 128, 16)
    shapes = [torch.Size(shape) for event in recorded.events() for shape in event.input_shapes if shape]
    assert max(shape.numel() for shape in shapes) <= 2 * 640 * 8
    waits = {"aten::_local_scalar_dense", "aten::nonzero", "aten::item"}
    assert not waits & {event.name for event in recorded.events()}
