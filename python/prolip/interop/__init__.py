"""Use prolip from other code.

Import `prolip.interop.open_clip` and `prolip.interop.transformers` by their own names: they need more packages.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
