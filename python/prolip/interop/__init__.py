"""The loader for others: a plain torch data set, and open_clip's training data.

`prolip.interop.open_clip` is imported by its name, for it needs open_clip's training code.
"""

from prolip.interop.epochs import Epochs
from prolip.interop.torch_dataset import BatchDataset

__all__ = ["BatchDataset", "Epochs"]
