"""Find and open the files of any model source (run, checkpoint, folder, hub, open_clip:...)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
