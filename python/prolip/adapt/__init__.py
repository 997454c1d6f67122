"""Learn Gaussians for a frozen CLIP or SigLIP from cached embeddings (`prolip adapt`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.adapt.config import AdaptOptions, HeadsConfig
from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.adapt.heads import fit_heads
    from prolip.adapt.laplace import Posterior, fit_laplace
    from prolip.adapt.pairs import Pairs, open_pairs
    from prolip.adapt.run import run_adapt
    from prolip.adapt.temperature import fit_logits

__all__ = [
    "AdaptOptions",
    "HeadsConfig",
    "Pairs",
    "Posterior",
    "fit_heads",
    "fit_laplace",
    "fit_logits",
    "open_pairs",
    "run_adapt",
]

__getattr__ = lazy_names(__name__, __file__)
