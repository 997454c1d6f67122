"""The captions that a walk follows are those that are best somewhere on it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prolip.eval.config import TraversalConfig
from prolip.eval.hierarchy import visited_items


def every_caption(start: Tensor, root: Tensor, config: TraversalConfig) -> Tensor:
    """The best of all captions at each step."""
    shares = [step / config.num_steps for step in range(config.num_steps)]
    return torch.stack([torch.lerp(start, root.expand_as(start), share).argmax(dim=1) for share in shares], dim=1)


@given(
    walks=st.integers(1, 5),
    captions=st.integers(1, 90),
    shared=st.booleans(),
    steps=st.sampled_from([1, 2, 7, 50]),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=200, deadline=None)
def test_they_are_the_best_of_all(walks: int, captions: int, shared: bool, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few different values, so that there are ties at the start, at the root and on the way.
    start = torch.randint(8, (walks, captions), generator=generator).double()
    root = torch.randint(8, (1 if shared else walks, captions), generator=generator).double()
    config = TraversalConfig(num_steps=steps)
    met, best = visited_items(start, root, config), every_caption(start, root, config)
    shares = torch.arange(steps).double() / steps
    scores = torch.lerp(start[:, None], root.expand_as(start)[:, None], shares[:, None])
    # Of captions that cross in one step, rounding decides, here and there.
    torch.testing.assert_close(scores.gather(2, met[..., None]), scores.gather(2, best[..., None]))


@pytest.mark.parametrize("captions", [20, 500])
def test_a_walk_past_many_captions_meets_them_all(captions: int) -> None:
    # Tangents of a parabola: each is the best one on a part of the way, and none lies above all others elsewhere.
    place = torch.linspace(0, 1, captions, dtype=torch.float64)
    start, root = -(place**2)[None], (1 - (1 - place) ** 2)[None]
    config = TraversalConfig(num_steps=2 * captions)
    met = visited_items(start, root, config)
    assert torch.equal(met, every_caption(start, root, config))
    assert len(met.unique()) > 0.9 * captions


def test_the_root_alone() -> None:
    config = TraversalConfig(root_only=True)
    met = visited_items(torch.zeros(3, 4), torch.tensor([[0.0, 2.0, 1.0, 2.0]]), config)
    assert torch.equal(met, torch.tensor([[1]] * 3))
