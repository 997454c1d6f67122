"""The data loader: threads in Rust read WebDataset shards and decode, augment, tokenize and mask them into batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prolip.data.config import (
    AugmentConfig,
    CaptionConfig,
    CaptionSource,
    LoaderConfig,
    MaskConfig,
    StoreConfig,
    TokenizerConfig,
)

if TYPE_CHECKING:
    from prolip.data.loader import (
        OPENAI_MEAN,
        OPENAI_STD,
        Batch,
        BatchLoader,
        Cursor,
        DataError,
        Leg,
        LoaderStats,
        Members,
        NoSampleError,
        StageStats,
        check_index,
        decode_only,
        examine_shards,
        expand_shards,
        fetch_shard,
        preprocess_image,
        shown_shard,
        write_index,
    )
    from prolip.data.tokenizer import Tokenizer

__all__ = [
    "OPENAI_MEAN",
    "OPENAI_STD",
    "AugmentConfig",
    "Batch",
    "BatchLoader",
    "CaptionConfig",
    "CaptionSource",
    "Cursor",
    "DataError",
    "Leg",
    "LoaderConfig",
    "LoaderStats",
    "MaskConfig",
    "Members",
    "NoSampleError",
    "StageStats",
    "StoreConfig",
    "Tokenizer",
    "TokenizerConfig",
    "check_index",
    "decode_only",
    "examine_shards",
    "expand_shards",
    "fetch_shard",
    "preprocess_image",
    "shown_shard",
    "write_index",
]


def __getattr__(name: str) -> Any:
    """Import the loader and numpy when they are first needed, so that reading the settings takes no time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("prolip.data.tokenizer" if name == "Tokenizer" else "prolip.data.loader"), name)
