"""Probabilistic language-image pre-training: Gaussian embeddings of images and captions (arXiv:2410.18857).

`prolip.load` opens a model, which encodes and classifies images and texts. Everything else is imported from its own
room: `prolip.data`, `prolip.models`, and so on. This module imports nothing heavy.
"""

from importlib.metadata import version
from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used."""
    return version(__name__) if name == "__version__" else _load(name)
