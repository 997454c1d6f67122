"""Turn any model source (run, checkpoint, folder, hub, open_clip:...) into a network, preprocessing and tokenizer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
