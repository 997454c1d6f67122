"""Measures of embeddings: pure functions of Gaussians, on any device, wherever the embeddings come from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prolip.eval.config import BprwConfig, TraversalConfig

if TYPE_CHECKING:
    from prolip.eval.bprw import PromptWeights, reweight_prompts
    from prolip.eval.coco import CocoTruth, Pairs, evaluate_coco
    from prolip.eval.hierarchy import Inclusion, Traversal, inclusion, mean_root, string_ids, traverse
    from prolip.eval.measures import measure_hierarchy, measure_retrieval, measure_uncertainty, measure_zero_shot
    from prolip.eval.prompts import (
        PromptFilter,
        SmallestByClass,
        SmallestInClass,
        SmallestOfAll,
        UpToThreshold,
        WithinSpread,
        fill_templates,
        filter_prompts,
        greedy_counts,
    )
    from prolip.eval.retrieval import (
        RetrievalResult,
        RPrecision,
        evaluate_retrieval,
        precision_at_r,
        rank_candidates,
        retrieval_scores,
    )
    from prolip.eval.statistics import Interval, bootstrap_interval, pearson, spearman
    from prolip.eval.uncertainty import (
        AccuracyBins,
        LengthTrend,
        LevelTrend,
        area_under_risk_coverage,
        count_words,
        expected_calibration_error,
        uncertainty_along_chains,
        uncertainty_bins,
        uncertainty_by_length,
    )
    from prolip.eval.zero_shot import (
        Classifier,
        ZeroShotResult,
        aggregate_prompts,
        evaluate_zero_shot,
        zero_shot_logits,
    )

__all__ = [
    "AccuracyBins",
    "BprwConfig",
    "Classifier",
    "CocoTruth",
    "Inclusion",
    "Interval",
    "LengthTrend",
    "LevelTrend",
    "Pairs",
    "PromptFilter",
    "PromptWeights",
    "RPrecision",
    "RetrievalResult",
    "SmallestByClass",
    "SmallestInClass",
    "SmallestOfAll",
    "Traversal",
    "TraversalConfig",
    "UpToThreshold",
    "WithinSpread",
    "ZeroShotResult",
    "aggregate_prompts",
    "area_under_risk_coverage",
    "bootstrap_interval",
    "count_words",
    "evaluate_coco",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "expected_calibration_error",
    "fill_templates",
    "filter_prompts",
    "greedy_counts",
    "inclusion",
    "mean_root",
    "measure_hierarchy",
    "measure_retrieval",
    "measure_uncertainty",
    "measure_zero_shot",
    "pearson",
    "precision_at_r",
    "rank_candidates",
    "retrieval_scores",
    "reweight_prompts",
    "spearman",
    "string_ids",
    "traverse",
    "uncertainty_along_chains",
    "uncertainty_bins",
    "uncertainty_by_length",
    "zero_shot_logits",
]

_LAZY = {
    "PromptWeights": "bprw",
    "reweight_prompts": "bprw",
    "CocoTruth": "coco",
    "Pairs": "coco",
    "evaluate_coco": "coco",
    "Inclusion": "hierarchy",
    "Traversal": "hierarchy",
    "inclusion": "hierarchy",
    "mean_root": "hierarchy",
    "string_ids": "hierarchy",
    "traverse": "hierarchy",
    "measure_hierarchy": "measures",
    "measure_retrieval": "measures",
    "measure_uncertainty": "measures",
    "measure_zero_shot": "measures",
    "PromptFilter": "prompts",
    "SmallestByClass": "prompts",
    "SmallestInClass": "prompts",
    "SmallestOfAll": "prompts",
    "UpToThreshold": "prompts",
    "WithinSpread": "prompts",
    "fill_templates": "prompts",
    "filter_prompts": "prompts",
    "greedy_counts": "prompts",
    "RPrecision": "retrieval",
    "RetrievalResult": "retrieval",
    "evaluate_retrieval": "retrieval",
    "precision_at_r": "retrieval",
    "rank_candidates": "retrieval",
    "retrieval_scores": "retrieval",
    "Interval": "statistics",
    "bootstrap_interval": "statistics",
    "pearson": "statistics",
    "spearman": "statistics",
    "AccuracyBins": "uncertainty",
    "LengthTrend": "uncertainty",
    "LevelTrend": "uncertainty",
    "area_under_risk_coverage": "uncertainty",
    "count_words": "uncertainty",
    "expected_calibration_error": "uncertainty",
    "uncertainty_along_chains": "uncertainty",
    "uncertainty_bins": "uncertainty",
    "uncertainty_by_length": "uncertainty",
    "Classifier": "zero_shot",
    "ZeroShotResult": "zero_shot",
    "aggregate_prompts": "zero_shot",
    "evaluate_zero_shot": "zero_shot",
    "zero_shot_logits": "zero_shot",
}


def __getattr__(name: str) -> Any:
    """Import a measure, and torch with it, when it is first used, so that the configuration stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
