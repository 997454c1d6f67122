"""Names that options and functions share."""

from __future__ import annotations

from typing import Literal

Method = Literal["lac", "aps", "raps"]
"""A conformity score of probabilities (`prolip.calibration.conformal_scores`)."""
Score = Literal["lac", "aps", "raps", "csd"]
"""A `Method`, or the sampled distance of image and label."""
Prior = Literal["even", "labelled"]
"""Label frequencies: all equal, or estimated from the labelled items (`prolip.calibration.label_shares`)."""
QueryKind = Literal["text", "image"]
"""What a search is asked with."""
NO_CSD = "the model's variances are epistemic, and the sampled distance would penalise them"
"""Why a model with a Laplace approximation has no CSD."""
CALIBRATION_FILE = "calibration.safetensors"
"""Name of a calibration in a model's folder."""
SEARCH_FILE = "search.safetensors"
"""Name of a calibration of searches in a model's folder."""
