"""Names that options and functions share."""

from __future__ import annotations

from typing import Literal

Method = Literal["lac", "aps", "raps"]
"""A score of probabilities for label sets (`prolip.decisions.conformal_scores`)."""
Score = Literal["lac", "aps", "raps", "csd"]
"""A `Method`, or the sampled distance of image and label, with both variances."""
Prior = Literal["even", "labelled"]
"""How frequent labels are: all equally, or as among the labelled items (`prolip.decisions.label_shares`)."""
Loss = Literal["any", "share"]
"""Loss of a retrieval query. `any`: 1 if no right candidate is kept. `share`: the share of them that is not kept."""
NO_CSD = "the model's variances say what it has not learned, and the sampled distance would penalise that"
"""Why CSD is not used for a model with a Laplace approximation."""
CALIBRATION_FILE = "calibration.safetensors"
"""Name of a calibration in a model's folder."""
