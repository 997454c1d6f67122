"""Probabilistic language-image pre-training: Gaussian embeddings of images and captions (arXiv:2410.18857).

`prolip.load` opens a model, which encodes and classifies images and texts. Import everything else from its own room:
`prolip.data`, `prolip.models`, `prolip.losses`, `prolip.gaussian`, `prolip.metrics`. This module imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.gaussian import Gaussian, csd, inclusion_score
    from prolip.models.released import ReleasedModel, list_models
    from prolip.pretrained.classify import Classification
    from prolip.pretrained.model import Model
    from prolip.pretrained.open import load

__all__ = [
    "Classification",
    "Gaussian",
    "Model",
    "ReleasedModel",
    "csd",
    "inclusion_score",
    "list_models",
    "load",
]

__getattr__ = lazy_names(__name__, __file__)
