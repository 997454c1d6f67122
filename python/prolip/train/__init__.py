"""Training: `torchrun -m prolip.train RECIPE` runs `prolip.train.loop`, which reads from top to bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.train.loop import main

__all__ = ["main"]

__getattr__ = lazy_names(__name__, __file__)
