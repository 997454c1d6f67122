"""`prolip eval`: benchmarks that run a model on data sets and return rows of figures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
