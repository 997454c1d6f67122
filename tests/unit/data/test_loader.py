"""The loader as Python sees it: what crosses, who owns memory, which settings are refused.

The laws of order, masking and archives are tested in Rust (rust/loader/tests).
"""

from __future__ import annotations

import dataclasses
import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.images import encode
from tests.support.shards import FULL, TOKENIZER, config, contents, encoded, write_tar, write_two_shards

from prolip import _core
from prolip._core import testing
from prolip.data import (
    AugmentConfig,
    Batch,
    BatchLoader,
    CaptionConfig,
    CaptionSource,
    Cursor,
    DataError,
    Leg,
    MaskConfig,
    StoreConfig,
    preprocess_image,
)
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_two_shards(tmp_path_factory.mktemp("shards"))


def at(epoch: int, *legs: tuple[int, int, int]) -> Cursor:
    return Cursor(
        epoch=epoch, legs=tuple(Leg(world_size=ranks, batch_size=size, steps=steps) for ranks, size, steps in legs)
    )


def test_a_batch_has_the_documented_shapes_and_types(shards: str) -> None:
    with BatchLoader(config(shards, **FULL)) as loader:
        assert (loader.num_samples, loader.num_batches) == (16, 4)
        batches = list(loader)
    assert len(batches) == 8
    batch = batches[0]
    for array, shape, kind in (
        (batch.images, (4, 8, 8, 3), np.uint8),
        (batch.token_ids, (2, 4, 12), np.int32),
        (batch.masked_token_ids, (2, 2, 12), np.int32),
        (batch.kept_patches, (2, 12), np.int64),
    ):
        assert array is not None
        assert array.shape == shape
        assert array.dtype == np.dtype(kind)
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert [batch.cursor for batch in batches[3:5]] == [at(0, (1, 4, 4)), at(1, (1, 4, 1))]
    for key, member, ids in zip(batch.keys, batch.members["json"], batch.token_ids[0], strict=True):
        assert json.loads(member or b"")["levels"]["name"] == f"name {key}"
        assert ids.tolist() == Tokenizer(TOKENIZER).encode([f"picture {key}"])[0].tolist()


def test_without_captions_and_masks_their_arrays_are_empty_or_none(shards: str) -> None:
    with BatchLoader(config(shards, captions=())) as loader:
        batch = next(iter(loader))
    assert batch.token_ids.shape == (0, 4, 0)
    assert (batch.masked_token_ids, batch.kept_patches, batch.members) == (None, None, {})


def test_batches_do_not_depend_on_the_number_of_threads(shards: str) -> None:
    one, many = (BatchLoader(config(shards, num_threads=threads, **FULL)) for threads in (1, 4))
    assert contents(one) == contents(many)


def test_a_loader_can_be_read_again_and_from_any_cursor(shards: str) -> None:
    loader = BatchLoader(config(shards, **FULL))
    whole = contents(loader)
    assert contents(loader) == whole
    for stop in (0, 3, 6):
        cursor = whole[stop][-1]
        assert contents(BatchLoader(config(shards, **FULL), resume=cursor)) == whole[stop + 1 :]


def test_ranks_have_equal_batches_and_no_common_sample(shards: str) -> None:
    keys: list[str] = []
    for rank in range(3):
        loader = BatchLoader(config(shards, batch_size=2), rank=rank, world_size=3)
        assert loader.num_batches == 2
        keys += [key for batch in loader for key in batch.keys]
    assert len(set(keys)) == len(keys) == 12


def test_a_list_in_a_file_names_shards(shards: str, tmp_path: Path) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text(f"# training\n{shards}\n")
    assert BatchLoader(config(str(listed))).num_samples == 16


def test_evaluation_pixels_equal_preprocess_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    image = encode(Image.fromarray(noise), "jpeg", quality=95)
    write_tar(tmp_path / "0.tar", [("a.jpg", image)])
    kept = config(str(tmp_path / "0.tar"), image_size=24, captions=(), shuffle_window=0, last_batch="keep")
    (batch,) = BatchLoader(kept)
    np.testing.assert_array_equal(batch.images[0], preprocess_image(image, 24))
    with pytest.raises(DataError, match="not a JPEG"):
        preprocess_image(b"text", 24)
    for size in (0, -1, 16_385):
        with pytest.raises(UserError, match=r"^size: "):
            preprocess_image(image, size)


# ---- memory ---------------------------------------------------------------------------------------------------------


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def test_arrays_share_the_loaders_memory(shards: str) -> None:
    start = Cursor()
    loader = _core.BatchLoader(config(shards), Tokenizer(TOKENIZER).core, rank=0, world_size=1, resume=start)
    run = loader.begin(start)
    del loader
    batch = next(run)
    assert address(batch.images) == address(batch.images)
    batch.images[0, 0, 0, 0] = 77
    assert batch.images[0, 0, 0, 0] == 77
    view = batch.images[1:, :, ::2]
    expected = view.copy()
    del batch
    # The view alone holds the memory, through all batches behind it.
    assert len(list(run)) == 3
    np.testing.assert_array_equal(view, expected)


def test_memory_is_reused_only_after_a_batch_is_dropped(shards: str) -> None:
    seen: list[int] = []
    endless = BatchLoader(config(shards, num_epochs=None, prefetch_batches=2))
    run = iter(endless)
    kept = next(run).images
    copy = kept.copy()
    gc.freeze()  # what there is has no part in it, and takes long to look through
    for _ in range(30):
        seen.append(address(next(run).images))
        gc.collect()
    assert address(kept) not in seen
    assert len(set(seen)) <= 5
    np.testing.assert_array_equal(kept, copy)
    endless.close()


def test_arrays_stay_valid_after_the_loader_is_closed(shards: str) -> None:
    loader = BatchLoader(config(shards))
    batch: Batch = next(iter(loader))
    expected = batch.images.copy()
    loader.close()
    del loader
    gc.collect()
    np.testing.assert_array_equal(batch.images, expected)


# ---- configuration --------------------------------------------------------------------------------------------------


def test_a_folder_of_shards_is_not_a_shard(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder") as error:
        BatchLoader(config(str(tmp_path)))
    assert error.value.field == "shards"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"shards": "https://me:pass@h/a.tar?s=1"}, "shards"),
        ({"keep_members": "cls"}, "keep_members"),
        ({"captions": (CaptionConfig(sources=(CaptionSource(general="txt"),)),)}, "captions[0].sources[0].general"),  # type: ignore[arg-type]
        ({"store": StoreConfig(allow_pipe="false")}, "store.allow_pipe"),  # type: ignore[arg-type]
        ({"batch_size": 17}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"batch_size": -(10**50)}, "batch_size"),
        ({"last_batch": "wrap"}, "last_batch"),
        ({"mask": MaskConfig(masked_fraction=1, mask_id=0)}, "mask.mask_id"),
        ({"augment": AugmentConfig(gray_prob=2)}, "augment.gray_prob"),
    ],
)
def test_invalid_loader_settings_are_named(shards: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UserError) as error:
        BatchLoader(config(shards, **changes))
    assert error.value.field == field
    assert "pass" not in str(error.value)


@pytest.mark.parametrize(
    ("ranks", "resume", "field"),
    [
        ((2, 2), Cursor(), "rank"),
        ((-1, 2), Cursor(), "rank"),
        ((0, 1), Cursor(epoch=-1), "resume.epoch"),
        ((0, 1), at(0, (1, 4, 5)), "resume.legs[0].steps"),
        ((0, 1), at(0, (1, 4, 1), (1, -2, 0)), "resume.legs[1].batch_size"),
    ],
)
def test_invalid_ranks_and_cursors_are_named(shards: str, ranks: tuple[int, int], resume: Cursor, field: str) -> None:
    with pytest.raises(UserError) as error:
        BatchLoader(config(shards), rank=ranks[0], world_size=ranks[1], resume=resume)
    assert error.value.field == field


def test_an_epoch_resumes_with_another_number_of_ranks(shards: str) -> None:
    base = config(shards, batch_size=2, last_batch="keep")
    loader = BatchLoader(base, rank=1, world_size=2)
    whole = contents(loader)
    cursor = whole[1][-1]
    assert cursor == at(0, (2, 2, 2))
    assert contents(BatchLoader(base, rank=1, world_size=2, resume=cursor)) == whole[2:]
    keys = [
        key
        for rank in range(2)
        for batch in contents(BatchLoader(base, rank=rank, world_size=2))[:2]
        for key in batch[4]
    ]
    for rank in range(3):
        rest = list(BatchLoader(base, rank=rank, world_size=3, resume=cursor))
        assert [batch.cursor for batch in rest] == [at(0, (2, 2, 2), (3, 2, steps + 1)) for steps in range(len(rest))]
        keys += [key for batch in rest for key in batch.keys]
    assert sorted(keys) == sorted(f"s{shard}k{index}" for shard, size in enumerate((7, 9)) for index in range(size))


def test_a_loaders_state_is_the_cursor_of_its_last_batch(shards: str) -> None:
    base = config(shards, **FULL)
    whole = contents(BatchLoader(base))
    loader = BatchLoader(base)
    start = loader.state_dict()
    run = iter(loader)
    for number in range(3):
        next(run)
        assert Cursor.from_dict(loader.state_dict()) == whole[number][-1]
    state = json.loads(json.dumps(loader.state_dict()))
    other = BatchLoader(base)
    other.load_state_dict(state)
    assert Cursor.from_dict(other.state_dict()) == whole[2][-1]
    assert contents(other) == whole[3:]
    other.load_state_dict(state)
    run = iter(other)
    assert Cursor.from_dict(other.state_dict()) == whole[2][-1], "before the first batch, too"
    del run
    # The state was for one run.
    assert contents(other) == whole
    other.load_state_dict(start)
    assert contents(other) == whole
    with pytest.raises(ValueError, match=r"resume is \{'epoch': 0, 'samples': 8, 'parts': 1\}: it is not a cursor"):
        other.load_state_dict({"epoch": 0, "samples": 8, "parts": 1})
    with pytest.raises(UserError, match="resume is None: it is not a cursor"):
        other.load_state_dict(None)  # type: ignore[arg-type]
    other.load_state_dict({"epoch": 0, "legs": [{"world_size": 1, "batch_size": 4, "steps": 9}]})
    with pytest.raises(ValueError, match=r"^resume.legs\[0\].steps: "):
        next(iter(other))


def test_a_padded_epoch_has_full_batches_of_all_samples(shards: str) -> None:
    base = config(shards, batch_size=3, last_batch="pad")
    keys: list[str] = []
    for rank in range(2):
        loader = BatchLoader(base, rank=rank, world_size=2)
        assert loader.num_batches == 3
        batches = [batch.keys for batch in loader]
        assert [len(batch) for batch in batches] == [3, 3, 3]
        keys += [key for batch in batches for key in batch]
    assert (len(keys), len(set(keys))) == (18, 16)


def test_the_largest_seed_is_accepted(shards: str) -> None:
    assert len(contents(BatchLoader(config(shards, seed=2**64 - 1)))) == 4


# ---- masks ----------------------------------------------------------------------------------------------------------


def test_a_small_last_batch_may_have_nothing_masked(shards: str) -> None:
    mask = MaskConfig(masked_fraction=0.2, num_patches=16, mask_id=49_408)
    *full, last = BatchLoader(config(shards, batch_size=6, mask=mask, last_batch="keep"))
    assert [batch.kept_patches is not None for batch in full] == [True, True]
    assert len(last.keys) == 4
    assert (last.masked_token_ids, last.kept_patches) == (None, None)


def test_a_token_with_the_id_of_padding_is_masked(tmp_path: Path) -> None:
    """CLIP pads with 0, which is also `!` within a word; the padding is what stands behind the end token."""
    text = "hm !~ so"
    write_tar(tmp_path / "0.tar", [("a.png", encoded((0, 0, 0))), ("a.txt", text.encode())])
    row = Tokenizer(TOKENIZER).encode([text])[0].tolist()
    assert row == [49_406, 7_631, 0, 349, 706, 49_407, 0, 0, 0, 0, 0, 0]
    mask = MaskConfig(masked_fraction=1, text_mask_prob=1, num_patches=16, mask_id=49_408)
    (batch,) = BatchLoader(config(str(tmp_path / "0.tar"), batch_size=1, mask=mask))
    assert batch.masked_token_ids is not None
    assert batch.masked_token_ids[0, 0].tolist() == [49_408] * 6 + [0] * 6


def test_mask_tokens_follows_the_given_draws() -> None:
    ids = np.array([[5, 1, 7, 8, 1, 1], [5, 6, 7, 8, 9, 1], [2, 2, 2, 2, 2, 2]], dtype=np.int32)
    draws = np.array([[0.1, 0.1, 0.5, 0.9, 0.1, 0.1], [0.9, 0.2, 0.9, 0.2, 0.9, 0.0]])
    masked = testing.mask_tokens(ids, draws, 2, 0.5, 99, 1)
    assert masked.tolist() == [[99, 1, 7, 8, 1, 1], [5, 99, 7, 99, 9, 1]]
    assert masked.dtype == np.int32
    with pytest.raises(ValueError, match="num_masked is 4: must not be above the 3 rows"):
        testing.mask_tokens(ids, draws, 4, 0.5, 99, 1)
    with pytest.raises(ValueError, match=r"draws has shape \[2, 6\]: must be \[3, 6\]"):
        testing.mask_tokens(ids, draws, 3, 0.5, 99, 1)


def with_surplus(one: Any) -> Any:
    """A copy of a dataclass with a field that the loader does not know."""
    surplus = ("surplus", int, dataclasses.field(default=0, kw_only=True))
    kind = dataclasses.make_dataclass("Surplus", [surplus], bases=(type(one),), frozen=True)
    return kind(**{field.name: getattr(one, field.name) for field in dataclasses.fields(one)})


def test_a_config_field_unknown_to_rust_is_an_error(shards: str) -> None:
    # A field that only Rust knows is one too: no test of this file could open a loader.
    whole = config(shards, **FULL)
    cases = {
        "": with_surplus(whole),
        "store.": dataclasses.replace(whole, store=with_surplus(whole.store)),
        "augment.": dataclasses.replace(whole, augment=with_surplus(whole.augment)),
        "mask.": dataclasses.replace(whole, mask=with_surplus(whole.mask)),
        "captions[0].": dataclasses.replace(whole, captions=(with_surplus(whole.captions[0]),)),
    }
    for prefix, settings in cases.items():
        with pytest.raises(UserError) as error:
            BatchLoader(settings)
        assert error.value.field == f"{prefix}surplus"
