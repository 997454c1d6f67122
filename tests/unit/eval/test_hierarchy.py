"""Inclusion along a chain, and the HierarCaps walk against a walk with embedded queries."""

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.eval import hierarchy
from prolip.eval.config import TraversalConfig
from prolip.eval.hierarchy import (
    including_items,
    inclusion,
    inclusion_chain,
    inclusion_in_each,
    score_visited,
    traverse,
)
from prolip.gaussian import Gaussian, inclusion_score, official_inclusion_test

T = torch.tensor


def gaussians(*shape: int, seed: int, log_var: float = -3.0) -> Gaussian:
    noise = torch.Generator().manual_seed(seed)
    mean = F.normalize(torch.randn(*shape, generator=noise, dtype=torch.float64), dim=-1)
    return Gaussian(mean, log_var + 0.3 * torch.randn(*shape, generator=noise, dtype=torch.float64))


def test_a_narrow_gaussian_lies_in_a_wide_one() -> None:
    narrow, wide = gaussians(5, 8, seed=0, log_var=-6.0), gaussians(5, 8, seed=1, log_var=-2.0)
    inside, outside = inclusion(narrow, wide, ("a", "b")), inclusion(wide, narrow, ("b", "a"))
    assert inside.share_positive == 1.0
    assert outside.share_positive == 0.0
    assert inside.mean_score == pytest.approx(-outside.mean_score)
    assert inside.mean_score == pytest.approx(float(inclusion_score(narrow, wide).mean()))


def test_equal_variances_count_half() -> None:
    level = gaussians(4, 8, seed=0)
    assert inclusion(level, level, ("a", "a")).share_positive == 0.5


def test_nothing_to_include_is_nan() -> None:
    empty = gaussians(0, 8, seed=0)
    assert math.isnan(inclusion(empty, empty, ("a", "b")).mean_score)


def test_chain_and_star_name_their_levels() -> None:
    levels = [(name, gaussians(3, 4, seed=place)) for place, name in enumerate("abcd")]
    assert [(step.specific, step.general) for step in inclusion_chain(levels)] == [("a", "b"), ("b", "c"), ("c", "d")]
    assert [(s.specific, s.general) for s in inclusion_in_each(levels[0], levels[1:])] == [
        ("a", "b"),
        ("a", "c"),
        ("a", "d"),
    ]


@pytest.mark.parametrize("form", ["official", "exact"])
def test_including_caption_has_the_largest_score(form: Literal["official", "exact"]) -> None:
    images, captions = gaussians(6, 5, seed=2), gaussians(9, 5, seed=3)
    best = including_items(images, captions, form)
    for i in range(6):
        one = images.rows(slice(i, i + 1))
        score = (
            official_inclusion_test(one, captions, 0.0).sum(1)
            if form == "official"
            else inclusion_score(one, captions).sum(1)
        )
        assert int(best[i]) == int(score.argmax())


def slow_walk(images: Gaussian, captions: Gaussian, ids: Tensor, text_root: Tensor, config: TraversalConfig) -> Tensor:
    """Precision, recall, any per image, with every query embedded: the published loop restated."""
    texts, flat = captions.flatten(), ids.flatten().tolist()
    k = torch.arange(config.num_steps)[:, None]
    rows = []
    for i in range(len(images.mean)):
        start = texts.mean[int((texts.mean @ images.mean[i]).argmax())]
        top = texts.mean[including_items(images.rows(slice(i, i + 1)), texts, config.inclusion)[0]]
        root = {
            "text": text_root,
            "inclusion": F.normalize(config.root_weight * top, dim=0),
            "both": F.normalize(config.root_weight * top + text_root, dim=0),
        }[config.root]
        steps = F.normalize(start - (start - root) * k / config.num_steps, dim=1)
        nearest = ((root[None] if config.root_only else steps) @ texts.mean.T).argmax(dim=1)
        met = {flat[place] for place in nearest.tolist()}
        own = ids[i].tolist()
        rows.append(
            [len(met & set(own)) / len(met), sum(o in met for o in own) / len(own), float(bool(met & set(own)))]
        )
    return T(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    "config",
    [
        TraversalConfig(),
        TraversalConfig(num_steps=7),
        TraversalConfig(root_only=True),
        TraversalConfig(root="inclusion"),
        TraversalConfig(root="both", inclusion="exact"),
        TraversalConfig(root="both", root_weight=3.0, num_steps=11),
        TraversalConfig(root="both", root_only=True),
    ],
    ids=str,
)
@pytest.mark.parametrize(("n", "levels"), [(12, 4), (300, 3), (1, 1)])
def test_walk_equals_the_slow_one(
    config: TraversalConfig, n: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hierarchy, "MAX_SCORES", 100_000)  # 300 images are three blocks
    images, captions = gaussians(n, 6, seed=4), gaussians(n, levels, 6, seed=5)
    ids = torch.arange(n * levels).reshape(n, levels) % max(1, n * levels - 3)  # some strings are equal
    root = gaussians(1, 6, seed=6).mean[0]
    got = torch.stack(traverse(images, captions, ids, root, config), dim=1)
    assert torch.allclose(got, slow_walk(images, captions, ids, root, config))


def test_scores_of_visited_items_in_a_hand_made_table() -> None:
    scored = score_visited(T([[7, 3, 7, 9], [1, 1, 1, 1]]), T([[3, 4, 5, 3], [2, 3, 4, 5]]))
    assert scored.precision.tolist() == pytest.approx([1 / 3, 0.0])
    assert scored.recall.tolist() == [0.5, 0.0]
    assert scored.any_found.tolist() == [1.0, 0.0]
