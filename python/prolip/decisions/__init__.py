"""Uncertainty to act on: calibrated probabilities, label sets, "don't know", and scores of doubt, as pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.decisions.abstain import Abstention, abstention_threshold, binomial_p_values, threshold_order
    from prolip.decisions.calibration import (
        Calibration,
        Evidence,
        Subject,
        fit_calibration,
        load_calibration,
        save_calibration,
    )
    from prolip.decisions.conformal import (
        ClassThresholds,
        class_thresholds,
        conformal_scores,
        conformal_threshold,
        items_needed,
    )
    from prolip.decisions.doubt import (
        Known,
        expected_probabilities,
        fit_known,
        logit_doubts,
        neighbour_distance,
        outlier_p_values,
    )
    from prolip.decisions.prior import label_shares, log_prior
    from prolip.decisions.reliability import (
        Reliability,
        equal_mass_calibration_error,
        measure_pairs,
        measure_reliability,
    )
    from prolip.decisions.risk_control import retrieval_threshold
    from prolip.decisions.selective import auroc, excess_risk_coverage, risk_curve
    from prolip.decisions.temperature import PairScale, fit_pairs, fit_temperature

__all__ = [
    "Abstention",
    "Calibration",
    "ClassThresholds",
    "Evidence",
    "Known",
    "PairScale",
    "Reliability",
    "Subject",
    "abstention_threshold",
    "auroc",
    "binomial_p_values",
    "class_thresholds",
    "conformal_scores",
    "conformal_threshold",
    "equal_mass_calibration_error",
    "excess_risk_coverage",
    "expected_probabilities",
    "fit_calibration",
    "fit_known",
    "fit_pairs",
    "fit_temperature",
    "items_needed",
    "label_shares",
    "load_calibration",
    "log_prior",
    "logit_doubts",
    "measure_pairs",
    "measure_reliability",
    "neighbour_distance",
    "outlier_p_values",
    "retrieval_threshold",
    "risk_curve",
    "save_calibration",
    "threshold_order",
]

__getattr__ = lazy_names(__name__, __file__)
