"""The training loss and its terms."""

from prolip.losses.clip import clip_loss
from prolip.losses.inclusion import inclusion_loss
from prolip.losses.ppcl import ppcl
from prolip.losses.prolip import LossConfig, LossTerms, ProlipLoss
from prolip.losses.vib import vib_loss

__all__ = ["LossConfig", "LossTerms", "ProlipLoss", "clip_loss", "inclusion_loss", "ppcl", "vib_loss"]
