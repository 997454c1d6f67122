"""Re-exports from the Rust extension."""

from prolip._core import (
    LoaderStats as LoaderStats,
    StageStats as StageStats,
    check_index as check_index,
    decode_only as decode_only,
    examine_shards as examine_shards,
    expand_shards as expand_shards,
    fetch_shard as fetch_shard,
    shard_regions as shard_regions,
    shown_shard,
    simd_level as simd_level,
    simd_levels as simd_levels,
    usable_cores as usable_cores,
    write_index as write_index,
)
from prolip.errors import DataError as DataError, NoSampleError as NoSampleError

without_secrets = shown_shard
