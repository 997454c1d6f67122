"""Use prolip from other code: a torch dataset, open_clip's training, models in transformers, export.

Import `prolip.interop.open_clip` and `prolip.interop.transformers` by their own names, because they need more packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.interop.epochs import Epochs
    from prolip.interop.torch_dataset import BatchDataset

__all__ = ["BatchDataset", "Epochs"]

__getattr__ = lazy_names(__name__, {"torch_dataset": ("BatchDataset",), "epochs": ("Epochs",)})
