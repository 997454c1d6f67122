"""The public name of `Preprocess`, image preprocessing of any model: see `prolip.images.preprocess`."""

from prolip.images.preprocess import Preprocess

__all__ = ["Preprocess"]
