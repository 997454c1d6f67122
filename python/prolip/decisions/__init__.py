"""Decisions under uncertainty: calibrated probabilities, label sets, "don't know", and uncertainty scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.decisions.calibration import (
        Calibration,
        Evidence,
        Subject,
        fit_calibration,
        load_calibration,
        save_calibration,
    )
    from prolip.decisions.conformal import class_thresholds, conformal_scores, conformal_threshold
    from prolip.decisions.fitting import fit_pairs, fit_temperature, label_shares, log_prior
    from prolip.decisions.reliability import measure_pairs, measure_reliability
    from prolip.decisions.selective import logit_scores, neighbour_distance

__all__ = [
    "Calibration",
    "Evidence",
    "Subject",
    "class_thresholds",
    "conformal_scores",
    "conformal_threshold",
    "fit_calibration",
    "fit_pairs",
    "fit_temperature",
    "label_shares",
    "load_calibration",
    "log_prior",
    "logit_scores",
    "measure_pairs",
    "measure_reliability",
    "neighbour_distance",
    "save_calibration",
]

__getattr__ = lazy_names(__name__, __file__)
