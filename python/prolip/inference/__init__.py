"""Open a model with its preprocessing and tokenizer, and turn images and captions into Gaussians."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
