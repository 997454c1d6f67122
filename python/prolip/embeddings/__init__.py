"""Embed images and captions, store the Gaussians, search them, and choose samples by them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
