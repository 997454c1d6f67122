"""Properties of the loader over random shards: each sample once; threads and restarts change nothing."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from tests.support.images import encode
from tests.support.shards import write_tar

from prolip.data import AugmentConfig, Batch, BatchLoader, LoaderConfig, MaskConfig
from prolip.data.config import TokenizerConfig

pytestmark = pytest.mark.usefixtures("simd_level_asked_for")


def encoded_image() -> bytes:
    return encode(Image.effect_noise((9, 7), 90).convert("RGB"), "png")


IMAGE = encoded_image()


@contextmanager
def shards(sizes: list[int]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for shard, size in enumerate(sizes):
            members = [
                (f"{shard}-{index}.{extension}", data)
                for index in range(size)
                for extension, data in (("png", IMAGE), ("txt", f"number {index} of {shard}".encode()))
            ]
            write_tar(Path(folder) / f"{shard}.tar", members)
        yield str(Path(folder) / "*.tar")


def config(pattern: str, batch_size: int, window: int, seed: int) -> LoaderConfig:
    return LoaderConfig(
        shards=(pattern,),
        batch_size=batch_size,
        image_size=4,
        augment=AugmentConfig(),
        mask=MaskConfig(masked_fraction=1.0, num_patches=9, mask_id=49_408),
        tokenizer=TokenizerConfig(context_length=8),
        seed=seed,
        shuffle_window=window,
        num_epochs=2,
    )


def values(batches: list[Batch]) -> list[object]:
    arrays = [[batch.images, batch.token_ids, batch.masked_token_ids, batch.kept_patches] for batch in batches]
    lists = [[array.tolist() for array in batch if array is not None] for batch in arrays]
    return [(batch.keys, batch.cursor, content) for batch, content in zip(batches, lists, strict=True)]


SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) >= 6)


@settings(max_examples=15)
@given(
    SIZES, st.integers(1, 3), st.integers(1, 2), st.sampled_from([0, 1, 4, 1000]), st.integers(0, 2**63 - 1), st.data()
)
def test_batches_do_not_depend_on_threads_or_stops(
    sizes: list[int], batch_size: int, world_size: int, window: int, seed: int, data: st.DataObject
) -> None:
    with shards(sizes) as pattern:
        base = config(pattern, batch_size, window, seed)
        whole = [
            list(BatchLoader(dataclasses.replace(base, num_threads=1), rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]
        steps = sum(sizes) // (batch_size * world_size)
        assert [len(batches) for batches in whole] == [2 * steps] * world_size
        for epoch in range(2):
            keys = [key for batches in whole for batch in batches if batch.cursor.epoch == epoch for key in batch.keys]
            assert len(set(keys)) == len(keys) == steps * batch_size * world_size
        rank = data.draw(st.integers(0, world_size - 1), "rank")
        stop = data.draw(st.integers(0, 2 * steps - 1), "stop")
        threads = data.draw(st.integers(1, 4), "threads")
        resumed = BatchLoader(
            dataclasses.replace(base, num_threads=threads),
            rank=rank,
            world_size=world_size,
            resume=whole[rank][stop].cursor,
        )
        assert values(list(resumed)) == values(whole[rank][stop + 1 :])


@settings(max_examples=10)
@given(SIZES, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**63 - 1))
def test_an_evaluation_reads_each_sample_once(sizes: list[int], batch_size: int, world_size: int, seed: int) -> None:
    with shards(sizes) as pattern:
        base = dataclasses.replace(
            config(pattern, batch_size, 0, seed), mask=None, augment=None, last_batch="keep", num_epochs=1
        )
        keys = [
            key
            for rank in range(world_size)
            for batch in BatchLoader(base, rank=rank, world_size=world_size)
            for key in batch.keys
        ]
        assert keys == [f"{shard}-{index}" for shard, size in enumerate(sizes) for index in range(size)]
