"""The loader as Python sees it: what crosses, who owns memory, which settings are refused.

The laws of order, masking and archives are tested in Rust (rust/loader/tests).
"""

import dataclasses
import gc
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.support.refusals import refusal_of
from tests.support.shards import FULL, TOKENIZER, config, contents, encoded

from prolip import _core
from prolip.data import (
    AugmentConfig,
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
from prolip.store.selection import Chosen, write_selection


def at(epoch, *legs):
    return Cursor(
        epoch=epoch, legs=tuple(Leg(world_size=ranks, batch_size=size, steps=steps) for ranks, size, steps in legs)
    )


def test_a_batch_has_the_documented_shapes_and_types(shards):
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
        (batch.rows, (4,), np.uint32),
        (batch.sizes, (4, 2), np.int32),
    ):
        assert array.shape == shape
        assert array.dtype == np.dtype(kind)
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert all(
        batch.keys == [f"s{key[1]}k{row}" for key, row in zip(batch.keys, batch.rows, strict=True)] for batch in batches
    )
    assert (np.concatenate([batch.sizes for batch in batches]) == (14, 11)).all()
    assert [batch.cursor for batch in batches[3:5]] == [at(0, (1, 4, 4)), at(1, (1, 4, 1))]
    for key, member, ids in zip(batch.keys, batch.members["json"], batch.token_ids[0], strict=True):
        assert json.loads(member or b"")["levels"]["name"] == f"name {key}"
        assert ids.tolist() == Tokenizer(TOKENIZER).encode([f"picture {key}"])[0].tolist()


@pytest.mark.parametrize("size", [0, -1, 16_385])
def test_an_impossible_image_size_is_named(size):
    with refusal_of("size"):
        preprocess_image(encoded((1, 2, 3)), size)


# ---- memory ---------------------------------------------------------------------------------------------------------


def address(array):
    return int(array.__array_interface__["data"][0])


def test_arrays_share_the_loaders_memory(shards):
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


def test_memory_is_reused_only_after_a_batch_is_dropped(shards):
    seen = []
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


# ---- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"shards": "https://me:pass@h/a.tar?s=1"}, "shards"),
        ({"keep_members": "cls"}, "keep_members"),
        ({"captions": (CaptionConfig(sources=(CaptionSource(general="txt"),)),)}, "captions[0].sources[0].general"),
        ({"store": StoreConfig(allow_pipe="false")}, "store.allow_pipe"),
        ({"batch_size": 17}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"batch_size": -(10**50)}, "batch_size"),
        ({"last_batch": "wrap"}, "last_batch"),
        ({"mask": MaskConfig(masked_fraction=1, mask_id=0)}, "mask.mask_id"),
        ({"augment": AugmentConfig(gray_prob=2)}, "augment.gray_prob"),
    ],
)
def test_invalid_loader_settings_are_named(shards, changes, field):
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
def test_invalid_ranks_and_cursors_are_named(shards, ranks, resume, field):
    with refusal_of(field):
        BatchLoader(config(shards), rank=ranks[0], world_size=ranks[1], resume=resume)


def test_an_epoch_is_a_selection_and_each_repeat_is_drawn_anew(shards, tmp_path):
    selected = selecting(shards, tmp_path, ("001.tar", "", [0, 4, 8], [1, 2, 1]), ("000.tar", "", [3], [4]))
    expected = Counter({("s1k0", 0): 1, ("s1k4", 4): 2, ("s1k8", 8): 1, ("s0k3", 3): 4})
    for some in (selected, dataclasses.replace(selected, shards=())):
        with BatchLoader(some) as loader:
            assert (loader.num_samples, len(loader.stamps())) == (8, 2)
            batches = list(loader)
        samples = [(key, int(row)) for batch in batches for key, row in zip(batch.keys, batch.rows, strict=True)]
        assert Counter(samples) == expected
        images = {image.tobytes() for batch in batches for image in batch.images}
        assert len(images) == 8


@pytest.mark.parametrize(
    ("source", "stamp", "refused"),
    [
        (".", "", "selection"),
        ("lines.txt", "", "selection"),
        ("002.tar", "", "selection"),
        ("001.tar", "9-00000000", None),
        ("000.tar", "", None),
    ],
)
def test_what_a_selection_cannot_choose_is_named(shards, tmp_path, source, stamp, refused):
    selected = selecting(shards, tmp_path, (source, stamp, [8], None))
    with pytest.raises(UserError if refused else DataError, match=source) as error:
        BatchLoader(selected)
    assert getattr(error.value, "field", None) == refused


def test_other_sources_of_a_selection_are_left_out_with_a_warning(shards, tmp_path, caplog):
    with BatchLoader(selecting(shards, tmp_path, ("001.tar", "", [8], None), ("002.tar", "", [0], None))) as loader:
        assert loader.num_samples == 1
    assert "002.tar" in caplog.text


def selecting(shards, folder, *chosen):
    """A loader of a selection: names of shards, their stamps, rows and repeats."""
    write_selection(
        folder / "chosen",
        [
            Chosen(
                str(Path(shards).parent / name),
                stamp,
                np.array(rows, np.uint32),
                None if times is None else np.array(times, np.uint16),
            )
            for name, stamp, rows, times in chosen
        ],
    )
    return config(shards, selection=str(folder / "chosen"), augment=AugmentConfig(), last_batch="keep", image_size=32)


def test_a_loaders_state_is_the_cursor_of_its_last_batch(shards):
    base = config(shards, **FULL)
    whole = contents(BatchLoader(base))
    loader = BatchLoader(base)
    start = loader.state_dict()
    run = iter(loader)
    for number in range(3):
        next(run)
        assert Cursor.from_dict(loader.state_dict()) == whole[number][-1]
    state = json.loads(json.dumps(loader.state_dict()))
    other = BatchLoader(dataclasses.replace(base, num_threads=3))
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
    for wrong in ({"epoch": 0, "samples": 8, "parts": 1}, None):
        with refusal_of("resume"):
            other.load_state_dict(wrong)
    other.load_state_dict({"epoch": 0, "legs": [{"world_size": 1, "batch_size": 4, "steps": 9}]})
    with pytest.raises(ValueError, match=r"^resume.legs\[0\].steps: "):
        next(iter(other))


# ---- masks ----------------------------------------------------------------------------------------------------------


def with_surplus(one):
    """A copy of a dataclass with a field that the loader does not know."""
    surplus = ("surplus", int, dataclasses.field(default=0, kw_only=True))
    kind = dataclasses.make_dataclass("Surplus", [surplus], bases=(type(one),), frozen=True)
    return kind(**{field.name: getattr(one, field.name) for field in dataclasses.fields(one)})


def test_a_config_field_unknown_to_rust_is_an_error(shards):
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
        with refusal_of(f"{prefix}surplus"):
            BatchLoader(settings)
