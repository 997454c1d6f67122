"""Turn any model source (run, checkpoint, folder, hub, open_clip:...) into a network, preprocessing and tokenizer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prolip.pretrained.eval_model import EvalModel, Preprocess, of_open_clip, of_prolip, weights_digest
    from prolip.pretrained.open import open_eval_model, open_model, open_network, open_run
    from prolip.pretrained.sources import load, new_model, read_config

__all__ = [
    "EvalModel",
    "Preprocess",
    "load",
    "new_model",
    "of_open_clip",
    "of_prolip",
    "open_eval_model",
    "open_model",
    "open_network",
    "open_run",
    "read_config",
    "weights_digest",
]

_LAZY = {
    "EvalModel": "eval_model",
    "Preprocess": "eval_model",
    "of_open_clip": "eval_model",
    "of_prolip": "eval_model",
    "weights_digest": "eval_model",
    "open_eval_model": "open",
    "open_model": "open",
    "open_network": "open",
    "open_run": "open",
    "load": "sources",
    "new_model": "sources",
    "read_config": "sources",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: torch and its checkpoints take long to import."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
