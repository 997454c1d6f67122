"""Families of measures in one call, each figure against a plain loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.errors import UserError
from prolip.gaussian import Gaussian, inclusion_score
from prolip.metrics.config import TraversalConfig
from prolip.metrics.hierarchy import mean_root, traverse
from prolip.metrics.measures import flat, measure_hierarchy, measure_retrieval, measure_uncertainty, measure_zero_shot
from prolip.metrics.retrieval import RPrecision
from prolip.metrics.statistics import Interval
from prolip.metrics.zero_shot import Classifier


def gaussians(*shape: int, seed: int) -> Gaussian:
    noise = torch.Generator().manual_seed(seed)
    mean = F.normalize(torch.randn(*shape, generator=noise, dtype=torch.float64), dim=-1)
    return Gaussian(mean, torch.randn(*shape, generator=noise, dtype=torch.float64) - 3)


def test_nested_results_are_flattened_to_one_dictionary() -> None:
    result = {"a": RPrecision(r_precision=0.5, map_at_r=0.25), "b": [1, 2.5], "c": Interval(1.0, 0.5, 1.5)}
    assert flat(result) == {
        "a_r_precision": 0.5,
        "a_map_at_r": 0.25,
        "b_0": 1.0,
        "b_1": 2.5,
        "c": 1.0,
        "c_low": 0.5,
        "c_high": 1.5,
    }


def test_measure_zero_shot_equals_its_functions_with_and_without_variances() -> None:
    images, classes = gaussians(60, 8, seed=0), gaussians(7, 8, seed=1)
    labels = torch.randint(0, 7, (60,), generator=torch.Generator().manual_seed(2))
    found = measure_zero_shot(images, Classifier(classes.mean, classes.var), labels, num_bins=4, logit_scale=30.0)
    for suffix, weight in (("", 0.0), ("_with_var", 50.0)):
        first, fifth, by_class = [], [], {}
        for image, label in zip(images.mean, labels.tolist(), strict=True):
            scores = [float(100 * image @ m - weight * v.sum()) for m, v in zip(classes.mean, classes.var, strict=True)]
            order = sorted(range(7), key=lambda c: -scores[c])
            first.append(order[0] == label)
            fifth.append(label in order[:5])
            by_class.setdefault(label, []).append(order[0] == label)
        assert found[f"top1{suffix}"] == pytest.approx(sum(first) / 60)
        assert found[f"top5{suffix}"] == pytest.approx(sum(fifth) / 60)
        recall = sum(sum(hits) / len(hits) for hits in by_class.values()) / len(by_class)
        assert found[f"mean_per_class_recall{suffix}"] == pytest.approx(recall)
    keys = {"majority", "uncertainty_pearson_top1", "uncertainty_pearson_top5", "risk_coverage", "calibration_error"}
    assert keys < found.keys()
    assert all(isinstance(value, float) for value in found.values())


def test_uncertainty_figures_of_a_model_that_errs_where_it_is_uncertain() -> None:
    mean = torch.eye(2, dtype=torch.float64).repeat(20, 1)
    wrong = torch.arange(40) >= 36
    images = Gaussian(mean, torch.linspace(-9, -3, 40, dtype=torch.float64)[:, None].expand(40, 2))
    labels = torch.where(wrong, 1 - torch.arange(40) % 2, torch.arange(40) % 2)
    classifier = Classifier(torch.eye(2, dtype=torch.float64), torch.zeros(2, 2))
    found = measure_zero_shot(images, classifier, labels, logit_scale=100.0)
    assert found["top1"] == 0.9
    assert found["calibration_error"] == pytest.approx(0.1)  # certain of all, right in 9 of 10
    assert found["uncertainty_pearson_top1"] < 0
    assert found["risk_coverage"] == pytest.approx(sum(k / (36 + k) for k in range(1, 5)) / 40)
    assert math.isnan(found["uncertainty_pearson_top5"])  # two classes: always among the first five


def loop_retrieval(scores: Tensor, correct: Tensor) -> dict[str, float]:
    """Every figure by sorting each query's candidates."""
    ranks, precisions, averages = [], [], []
    for row, right in zip(scores.tolist(), correct.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda c: -row[c])
        ranks.append(next(place for place, c in enumerate(order) if right[c]))
        size = sum(right)
        hits = [right[c] for c in order[:size]]
        precisions.append(sum(hits) / size)
        averages.append(sum(sum(hits[: r + 1]) / (r + 1) for r in range(size) if hits[r]) / size)
    count = len(ranks)
    middle = sorted(ranks)
    median = (middle[(count - 1) // 2] + middle[count // 2]) / 2
    figures = {f"recall_at_{k}": sum(rank < k for rank in ranks) / count for k in (1, 5, 10)}
    figures |= {"mean_rank": sum(ranks) / count + 1, "median_rank": math.floor(median) + 1}
    return figures | {"r_precision": sum(precisions) / count, "map_at_r": sum(averages) / count}


def test_measure_retrieval_equals_a_slow_loop() -> None:
    images, texts = gaussians(30, 6, seed=3), gaussians(90, 6, seed=4)
    owner = torch.arange(90) % 30
    texts = Gaussian(F.normalize(texts.mean + images.mean[owner], dim=1), texts.log_var)
    correct = torch.arange(30)[:, None] == owner[None]
    found = measure_retrieval(images, texts, owner)
    expected: dict[str, float] = {}
    for score, factor in (("csd", 0.5), ("mean", 0.0)):
        similarity = images.mean @ texts.mean.T
        forward = loop_retrieval(similarity - factor * texts.total_var, correct)
        backward = loop_retrieval((similarity - factor * images.total_var[:, None]).T, correct.T)
        expected |= {f"image_to_text_{score}_{name}": value for name, value in forward.items()}
        expected |= {f"text_to_image_{score}_{name}": value for name, value in backward.items()}
    assert found == pytest.approx(expected)
    assert found["image_to_text_csd_recall_at_1"] != found["image_to_text_mean_recall_at_1"]


def test_measure_hierarchy_equals_its_functions() -> None:
    queries, items = gaussians(20, 6, seed=5), gaussians(20, 3, 6, seed=6)
    ids = torch.arange(60).reshape(20, 3)
    root = mean_root(items)
    found = measure_hierarchy(queries, items, ids, root, num_steps=9, num_resamples=20)
    walks = {
        "text": ("text", "official"),
        "inclusion_exact": ("inclusion", "exact"),
        "both_official": ("both", "official"),
    }
    for name, (kind, form) in walks.items():
        expected = traverse(queries, items, ids, root, TraversalConfig(root=kind, inclusion=form, num_steps=9))
        for figure, share in expected._asdict().items():
            assert found[f"{name}_{figure}"] == pytest.approx(float(share.mean()))
    for level in range(3):
        own = items[:, level]
        inside = [
            float(inclusion_score(queries.rows(slice(i, i + 1)), own.rows(slice(i, i + 1))).sum()) > 0
            for i in range(20)
        ]
        assert found[f"include_{level}"] == pytest.approx(sum(inside) / 20)
        assert found[f"level_mean_{level}"] == pytest.approx(float(own.total_var.mean()))
    assert found["level_spearman_low"] <= found["level_spearman"] <= found["level_spearman_high"]


def test_figures_of_variances_are_left_out_for_points() -> None:
    """They would be those of variances that are all equal, or not numbers."""
    images, texts, items = gaussians(20, 6, seed=5), gaussians(40, 6, seed=6), gaussians(20, 3, 6, seed=7)
    points = [Gaussian.point(one.mean) for one in (images, texts, items)]
    labels, owner, ids = torch.arange(20) % 5, torch.arange(40) % 20, torch.arange(60).reshape(20, 3)
    classes = gaussians(5, 6, seed=8)
    given = Classifier(classes.mean, classes.var)
    whole = measure_zero_shot(images, given, labels, logit_scale=9.0)
    plain = measure_zero_shot(points[0], Classifier(classes.mean, torch.zeros(5, 6)), labels, logit_scale=9.0)
    assert plain.keys() == {"top1", "top5", "mean_per_class_recall", "majority", "calibration_error"}
    assert plain == {key: whole[key] for key in plain}
    assert measure_zero_shot(points[0], given, labels, logit_scale=9.0).keys() - plain.keys() == {
        "top1_with_var",
        "top5_with_var",
        "mean_per_class_recall_with_var",
    }
    whole = measure_retrieval(images, texts, owner)
    for sides in ((points[0], points[1]), (images, points[1]), (points[0], texts)):
        assert measure_retrieval(*sides, owner) == {key: value for key, value in whole.items() if "_csd_" not in key}
    whole = measure_hierarchy(images, items, ids, mean_root(items), num_steps=5, num_resamples=3)
    for queries, hierarchy in ((points[0], points[2]), (images, points[2]), (points[0], items)):
        found = measure_hierarchy(queries, hierarchy, ids, mean_root(items), num_steps=5, num_resamples=3)
        assert found == {key: value for key, value in whole.items() if key.startswith("text_")}
    lengths = torch.arange(40)
    for sides, why in (
        ((points[0], texts), "images have no variances"),
        ((images, points[1]), "texts have no variances"),
        ((images.rows(slice(0)), texts), "there are no images"),
    ):
        with pytest.raises(UserError, match=why):
            measure_uncertainty(*sides, lengths)


def test_measure_uncertainty_covers_images_and_captions() -> None:
    images, texts = gaussians(50, 4, seed=7), gaussians(40, 4, seed=8)
    found = measure_uncertainty(images, texts, texts.total_var.argsort().argsort())
    for name, side in (("image", images.total_var), ("text", texts.total_var)):
        assert found[f"{name}_mean"] == pytest.approx(float(side.mean()))
        assert found[f"{name}_std"] == pytest.approx(float(side.std(correction=0))), "as in a run's validation"
        assert found[f"{name}_median"] == pytest.approx(float(side.median()), rel=0.2)
        assert found[f"{name}_low"] < found[f"{name}_median"] < found[f"{name}_high"]
    assert found["length_spearman"] == pytest.approx(1.0)
    one = images.rows(slice(0, 1))
    assert measure_uncertainty(one, one, torch.tensor([3]))["image_std"] == 0.0
