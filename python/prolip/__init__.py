"""Probabilistic language-image pre-training: Gaussian embeddings of images and captions (arXiv:2410.18857).

`prolip.load` opens a model, which encodes and classifies images and texts. Import everything else from its own room:
`prolip.data`, `prolip.models`, `prolip.losses`, `prolip.gaussian`, `prolip.metrics`. This module imports nothing heavy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
