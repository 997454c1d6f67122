"""The data loader: threads in Rust read WebDataset shards and decode, augment, tokenize and mask them into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip._core import (
    LoaderStats,
    StageStats,
    check_index,
    decode_only,
    examine_shards,
    expand_shards,
    fetch_shard,
    simd_level,
    simd_levels,
    usable_cores,
    write_index,
)
from prolip._core import shown_shard as without_secrets
from prolip.data.config import (
    AugmentConfig,
    CaptionConfig,
    CaptionSource,
    LoaderConfig,
    MaskConfig,
    StoreConfig,
    TokenizerConfig,
)
from prolip.errors import DataError, NoSampleError
from prolip.lazy import lazy_names
from prolip.normalization import OPENAI_MEAN, OPENAI_STD

if TYPE_CHECKING:
    from prolip.data.loader import Batch, BatchLoader, Cursor, Leg, Members, decode, preprocess_image
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
    "decode",
    "decode_only",
    "examine_shards",
    "expand_shards",
    "fetch_shard",
    "preprocess_image",
    "simd_level",
    "simd_levels",
    "usable_cores",
    "without_secrets",
    "write_index",
]

__getattr__ = lazy_names(__name__, __file__)
