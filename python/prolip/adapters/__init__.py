"""The loader for others: a plain torch data set, and open_clip's training data.

`prolip.adapters.open_clip` is imported by its name, for it needs open_clip's training code.
"""

from prolip.adapters.dataset import BatchDataset
from prolip.adapters.epochs import Epochs

__all__ = ["BatchDataset", "Epochs"]
