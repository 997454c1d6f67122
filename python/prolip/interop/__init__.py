"""Use prolip from other code: a torch dataset, open_clip's training, export to the hub's layout.

Import `prolip.interop.open_clip` by its own name, because it needs open_clip's training code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prolip.interop.epochs import Epochs
    from prolip.interop.torch_dataset import BatchDataset

__all__ = ["BatchDataset", "Epochs"]

_LAZY = {"BatchDataset": "torch_dataset", "Epochs": "epochs"}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
