"""Turn any model source (run, checkpoint, folder, hub, open_clip:...) into a network, preprocessing and tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names

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

__getattr__ = lazy_names(
    __name__,
    {
        "eval_model": ["EvalModel", "Preprocess", "of_open_clip", "of_prolip", "weights_digest"],
        "open": ["open_eval_model", "open_model", "open_network", "open_run"],
        "sources": ["load", "new_model", "read_config"],
    },
)
