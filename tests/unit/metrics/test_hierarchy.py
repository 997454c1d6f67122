"""The HierarCaps walk against a walk with embedded queries."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.support.random_gaussians import gaussians
from tests.support.refusals import refusal_of

from prolip.gaussian import Gaussian, inclusion_score, official_inclusion_test
from prolip.metrics import hierarchy
from prolip.metrics.config import TraversalConfig
from prolip.metrics.hierarchy import (
    entailment,
    including_items,
    mean_root,
    score_visited,
    string_ids,
    traverse,
)

T = torch.tensor


def test_strings_share_ids_and_the_root_of_images_is_their_normalised_mean():
    assert string_ids([["a", "a b"], ["a", "c"]]).tolist() == [[0, 1], [0, 2]]
    items = Gaussian(T([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.zeros(2, 1, 2))
    assert mean_root(items).tolist() == pytest.approx([math.sqrt(0.5)] * 2)


def test_variances_tell_the_direction_of_entailment_and_distances_tell_the_hierarchy():
    """Four hierarchies in directions of their own; 0 and 2 have the same general item, 3 has one item twice."""
    log_var = T([[0.0, -2.0]] * 3 + [[0.0, 2.0]])[..., None].expand(4, 2, 4)
    items = Gaussian(torch.eye(4)[:, None].expand(4, 2, 4), log_var)
    found = entailment(items, T([[0, 3], [1, 4], [0, 5], [2, 2]]))
    # A tie of all, and three entailed pairs below one other: the inclusion score grows with the distance of the means.
    expected = {
        ("reversed pairs", "inclusion"): (1, 1),
        ("reversed pairs", "uncertainty"): (1, 1),
        ("reversed pairs", "csd"): (0.5, 0.5),
        ("other hierarchies", "inclusion"): (0, 0.75),
        ("other hierarchies", "uncertainty"): (0.5, 0.75),
        ("other hierarchies", "csd"): (1, 1),
    }
    for (kind, name), values in expected.items():
        figures = [found.pop((figure, kind, name)) for figure in ("auroc", "average_precision")]
        assert figures == pytest.approx(values), (kind, name)
    assert not found


@pytest.mark.parametrize("form", ["official", "exact"])
def test_the_including_caption_has_the_largest_score(form):
    images, captions = gaussians(6, 5, seed=2), gaussians(9, 5, seed=3)
    score = inclusion_score if form == "exact" else lambda *pair: official_inclusion_test(*pair, 0.0)
    expected = [int(score(images.rows(slice(i, i + 1)), captions).sum(1).argmax()) for i in range(6)]
    assert including_items(images, captions, form).tolist() == expected


@pytest.mark.parametrize(("setting", "value"), [("num_steps", 0), ("root_weight", 0.0), ("root_weight", math.nan)])
def test_a_walk_has_a_step_and_a_root(setting, value):
    with refusal_of(f"walk.{setting}"):
        TraversalConfig(**{setting: value})


def slow_walk(images, captions, ids, text_root, config):
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
        met, own = {flat[place] for place in nearest.tolist()}, ids[i].tolist()
        shared = met & set(own)
        rows.append([len(shared) / len(met), sum(o in met for o in own) / len(own), float(bool(shared))])
    return T(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    "config",
    [
        TraversalConfig(num_steps=7),
        TraversalConfig(root_only=True),
        TraversalConfig(root="inclusion"),
        TraversalConfig(root="both", inclusion="exact"),
        TraversalConfig(root="both", root_weight=3.0, num_steps=11),
        TraversalConfig(root="both", root_only=True),
    ],
    ids=str,
)
@pytest.mark.parametrize(("n", "levels"), [(50, 3), (1, 1)])
def test_traversal_equals_a_slow_loop(config, n, levels, monkeypatch):
    monkeypatch.setattr(hierarchy, "MAX_SCORES", 3_000)  # 50 images are three blocks
    images, captions = gaussians(n, 6, seed=4), gaussians(n, levels, 6, seed=5)
    ids = torch.randint(9, (n, levels), generator=torch.Generator().manual_seed(7))  # many strings are equal
    root = gaussians(1, 6, seed=6).mean[0]
    got = torch.stack(traverse(images, captions, ids, root, config), dim=1)
    assert torch.allclose(got, slow_walk(images, captions, ids, root, config))
    plain = torch.stack(traverse(images, captions, ids, root, replace(config, root_weight=1.0)), dim=1)
    assert n == 1 or torch.equal(got, plain) == (config.root_weight == 1.0)
    assert n == 1 or len(got.unique(dim=0)) >= 3, "else the test says little"


def test_precision_and_recall_of_a_hand_made_table():
    scored = score_visited(T([[7, 3, 7, 9], [1, 1, 1, 1]]), T([[3, 4, 5, 3], [2, 3, 4, 5]]))
    assert scored.precision.tolist() == pytest.approx([1 / 3, 0.0])
    assert scored.recall.tolist() == [0.5, 0.0]
    assert scored.any_found.tolist() == [1.0, 0.0]
