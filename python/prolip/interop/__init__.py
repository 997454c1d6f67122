"""Use prolip from other code: a torch dataset, open_clip's training, transformers, vector databases, export.

Import `prolip.interop.open_clip` and `prolip.interop.transformers` by their own names, because they need more packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.interop.epochs import Epochs
    from prolip.interop.torch_dataset import BatchDataset
    from prolip.interop.vectors import query_vectors, read_vectors, stored_vectors

__all__ = ["BatchDataset", "Epochs", "query_vectors", "read_vectors", "stored_vectors"]

__getattr__ = lazy_names(__name__, __file__)
