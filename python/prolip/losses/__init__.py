"""The training loss and its terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names
from prolip.losses.config import LossConfig

if TYPE_CHECKING:
    from prolip.losses.clip import clip_loss
    from prolip.losses.inclusion import inclusion_loss
    from prolip.losses.prolip import LossTerms, ProlipLoss
    from prolip.losses.vib import vib_loss

__all__ = ["LossConfig", "LossTerms", "ProlipLoss", "clip_loss", "inclusion_loss", "vib_loss"]

__getattr__ = lazy_names(__name__, __file__)
