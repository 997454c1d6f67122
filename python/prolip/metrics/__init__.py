"""Measures of embeddings: pure functions of Gaussians, on any device, wherever the embeddings come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names
from prolip.metrics.config import BprwConfig, TraversalConfig

if TYPE_CHECKING:
    from prolip.metrics.bprw import PromptWeights, reweight_prompts
    from prolip.metrics.coco import CocoTruth, Pairs, evaluate_coco
    from prolip.metrics.hierarchy import Traversal, mean_root, string_ids, traverse
    from prolip.metrics.prompts import fill_templates, filter_prompts
    from prolip.metrics.retrieval import (
        RetrievalResult,
        evaluate_retrieval,
        precision_at_r,
        rank_candidates,
        retrieval_scores,
    )
    from prolip.metrics.statistics import Interval, bootstrap, pearson, spearman
    from prolip.metrics.uncertainty import (
        AccuracyBins,
        CosineMoments,
        area_under_risk_coverage,
        cosine_moments,
        count_words,
        expected_calibration_error,
        uncertainty_bins,
    )
    from prolip.metrics.zero_shot import (
        PUBLISHED_LOGIT_SCALE,
        Classifier,
        ZeroShotResult,
        aggregate_prompts,
        evaluate_zero_shot,
        measure_zero_shot,
        zero_shot_logits,
    )

__all__ = [
    "PUBLISHED_LOGIT_SCALE",
    "AccuracyBins",
    "BprwConfig",
    "Classifier",
    "CocoTruth",
    "CosineMoments",
    "Interval",
    "Pairs",
    "PromptWeights",
    "RetrievalResult",
    "Traversal",
    "TraversalConfig",
    "ZeroShotResult",
    "aggregate_prompts",
    "area_under_risk_coverage",
    "bootstrap",
    "cosine_moments",
    "count_words",
    "evaluate_coco",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "expected_calibration_error",
    "fill_templates",
    "filter_prompts",
    "mean_root",
    "measure_zero_shot",
    "pearson",
    "precision_at_r",
    "rank_candidates",
    "retrieval_scores",
    "reweight_prompts",
    "spearman",
    "string_ids",
    "traverse",
    "uncertainty_bins",
    "zero_shot_logits",
]

__getattr__ = lazy_names(__name__, __file__)
