from .config import (
    AugmentConfig as AugmentConfig,
    CaptionConfig as CaptionConfig,
    CaptionSource as CaptionSource,
    LoaderConfig as LoaderConfig,
    MaskConfig as MaskConfig,
    StoreConfig as StoreConfig,
    TokenizerConfig as TokenizerConfig,
)
from .loader import (
    Batch as Batch,
    BatchLoader as BatchLoader,
    Cursor as Cursor,
    Leg as Leg,
    Members as Members,
    decode as decode,
    preprocess_image as preprocess_image,
)
from .native import (
    OPENAI_MEAN as OPENAI_MEAN,
    OPENAI_STD as OPENAI_STD,
    DataError as DataError,
    LoaderStats as LoaderStats,
    NoSampleError as NoSampleError,
    StageStats as StageStats,
    check_index as check_index,
    decode_only as decode_only,
    examine_shards as examine_shards,
    expand_shards as expand_shards,
    fetch_shard as fetch_shard,
    shard_regions as shard_regions,
    simd_level as simd_level,
    simd_levels as simd_levels,
    usable_cores as usable_cores,
    without_secrets as without_secrets,
    write_index as write_index,
)
from .tokenizer import Tokenizer as Tokenizer
