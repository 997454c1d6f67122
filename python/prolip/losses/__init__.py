"""The training loss and its terms."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prolip.losses.config import LossConfig

if TYPE_CHECKING:
    from prolip.losses.clip import clip_loss
    from prolip.losses.inclusion import inclusion_loss
    from prolip.losses.prolip import LossTerms, ProlipLoss
    from prolip.losses.vib import vib_loss

__all__ = ["LossConfig", "LossTerms", "ProlipLoss", "clip_loss", "inclusion_loss", "vib_loss"]

_LAZY = {
    "LossTerms": "prolip",
    "ProlipLoss": "prolip",
    "clip_loss": "clip",
    "inclusion_loss": "inclusion",
    "vib_loss": "vib",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for, so that the configuration stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
