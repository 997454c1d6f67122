"""Turn any model source (run, checkpoint, folder, hub, open_clip:...) into a network, preprocessing and tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.pretrained.build_open_clip import of_open_clip
    from prolip.pretrained.classify import Classification
    from prolip.pretrained.download import DownloadError
    from prolip.pretrained.model import Model, Parts, of_prolip, weights_digest
    from prolip.pretrained.open import load
    from prolip.pretrained.preprocess import Preprocess
    from prolip.pretrained.sources import load_network, new_model, read_config
    from prolip.pretrained.tokenizer import own_tokenizer

__all__ = [
    "Classification",
    "DownloadError",
    "Model",
    "Parts",
    "Preprocess",
    "load",
    "load_network",
    "new_model",
    "of_open_clip",
    "of_prolip",
    "own_tokenizer",
    "read_config",
    "weights_digest",
]

__getattr__ = lazy_names(__name__, __file__)
