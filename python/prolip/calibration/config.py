"""Names that options and functions share."""

from __future__ import annotations

from typing import Literal

Score = Literal["lac", "csd"]
"""Conformity score of a label: 1 - its probability (arXiv:1609.00451), or the sampled distance of image and label."""
Prior = Literal["even", "labelled"]
"""Label frequencies: all equal, or estimated from the labelled items (`prolip.calibration.label_shares`)."""
QueryKind = Literal["text", "image"]
"""What a search is asked with."""
CALIBRATION_FILE = "calibration.safetensors"
"""Name of a calibration in a model's folder."""
SEARCH_FILE = "search.safetensors"
"""Name of a calibration of searches in a model's folder."""
