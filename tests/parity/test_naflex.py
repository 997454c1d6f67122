"""Images at native aspect ratio: grids and arrays of timm's NaFlex pipeline."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from PIL import Image, ImageOps
from tests.support.images import encode, noise
from tests.support.native_pixels import native_pixels
from tests.support.shards import config, write_tar
from timm.data.naflex_dataset import NaFlexCollator
from timm.data.naflex_transforms import Patchify, ResizeToSequence, get_image_size_for_seq

from prolip.data import (
    AugmentConfig,
    BatchLoader,
    MaskConfig,
    NativeConfig,
    PatchArrays,
    grid_of,
)

SIDES = st.integers(1, 6000)


@given(st.tuples(SIDES, SIDES), st.integers(4, 32), st.integers(1, 2048))
@example((1, 1), 16, 1024)  # even a hundred times larger it does not fill its sequence
def test_grids_equal_timms(size, patch, seq_len):
    _, (height, width) = get_image_size_for_seq(size, patch, seq_len)
    assert grid_of(*size, patch, seq_len) == (height // patch, width // patch)


def test_the_grid_of_an_endless_image_stays_within_its_sequence():
    assert grid_of(1, 2**32 - 1, 1, 7) == (1, 7)


@pytest.mark.usefixtures("simd_level_asked_for")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_whole_images_are_turned_and_resized_as_by_pillow(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for size in ((64, 48), (37, 151), (400, 300), (90, 701), (17, 1)):
        data = encode(noise(1, size), kind, exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            turned = ImageOps.exif_transpose(image).convert("RGB")
        for patch, seq_len in ((16, 64), (8, 196), (32, 9)):
            rows, columns = grid_of(turned.height, turned.width, patch, seq_len)
            expected = turned.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
            assert np.array_equal(native_pixels(data, patch, seq_len), expected), size


IMAGES = {f"k{number:02}": noise(number, (20 + 13 * number % 90, 100 - 5 * number)) for number in range(19)}
NATIVE = NativeConfig(patch_size=8, seq_lens=(30,), token_budget=256, batch_divisor=1)


def patches_of(batch):
    assert isinstance(batch.images, PatchArrays)
    return batch.images


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("mixed") / "0.tar"
    files = [[(f"{key}.png", encode(image, "PNG")), (f"{key}.txt", b"a cat")] for key, image in IMAGES.items()]
    write_tar(path, itertools.chain.from_iterable(files))
    return str(path)


def patchified(image, grid):
    rows, columns = grid.tolist()
    pixels = np.asarray(image.resize((columns * 8, rows * 8), Image.Resampling.BICUBIC))
    return pixels.reshape(rows, 8, columns, 8, 3).swapaxes(1, 2).reshape(rows * columns, 192)


@pytest.mark.parametrize("last_batch", ["keep", "drop"])
def test_turned_images_move_together_after_a_bad_one(tmp_path, last_batch):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {key: encode(image, "PNG", exif=exif) for key, image in IMAGES.items()}
    # A header that tells a size, and no pixels. In training another sample takes its place.
    files["k03"] = files["k03"][:60]
    members = [[(f"{key}.png", file), (f"{key}.txt", b"a cat")] for key, file in files.items()]
    write_tar(tmp_path / "0.tar", itertools.chain.from_iterable(members))
    native = replace(NATIVE, token_budget=30 * 19)
    settings = config(str(tmp_path / "0.tar"), native=native, last_batch=last_batch, max_bad_fraction=0.3)
    with BatchLoader(settings) as loader:
        (batch,) = loader
    ours = patches_of(batch)
    assert len(batch.keys) == len(ours.grids) == (18 if last_batch == "keep" else 19)
    assert "k03" not in batch.keys
    assert batch.sizes.tolist() == [list(IMAGES[key].size[::-1]) for key in batch.keys]
    expected = np.zeros_like(ours.patches)
    for row, key, grid in zip(expected, batch.keys, ours.grids, strict=True):
        image = patchified(IMAGES[key].transpose(Image.Transpose.ROTATE_270), grid)
        row[: len(image)] = image
    assert np.array_equal(ours.patches, expected)


def test_padded_arrays_of_evaluation_equal_timms(shard):
    resize, patchify, collate = ResizeToSequence(8, 30), Patchify(8), NaFlexCollator(30)
    with BatchLoader(config(shard, native=NATIVE, shuffle_window=0, last_batch="keep")) as loader:
        for batch in loader:
            expected, _ = collate([(patchify(resize(IMAGES[key])), 0) for key in batch.keys])
            ours = patches_of(batch)
            assert np.array_equal(ours.patches, (expected["patches"] * 255).round().byte())
            assert np.array_equal(ours.patch_coords, expected["patch_coord"])
            assert np.array_equal(ours.patch_valid, expected["patch_valid"])


def test_steps_draw_lengths_and_masks_keep_patches_of_their_image(shard):
    native = NativeConfig(patch_size=8, seq_lens=(12, 30), token_budget=128, batch_divisor=4)
    mask = MaskConfig(masked_fraction=0.5, keep_ratio=0.6, patch_draw="sample", mask_id=49_408)
    settings = config(shard, native=native, mask=mask, augment=AugmentConfig(), num_epochs=9)
    table = np.arange(3 * 256, dtype=np.float32).reshape(3, 256, 1).view(np.uint8)
    with BatchLoader(settings) as loader, BatchLoader(settings) as other:
        shapes = set()
        for batch, translated in zip(loader, other.translated(table), strict=True):
            ours = patches_of(batch)
            shapes.add(ours.patches.shape)
            counts = ours.grids.prod(axis=1)
            assert np.array_equal(ours.patch_valid.sum(axis=1), counts)
            values = np.where(ours.patch_valid[..., None], ours.patches + 256.0 * (np.arange(192) % 3), 0)
            assert np.array_equal(patches_of(translated).patches.view(np.float32), values)
            kept = batch.kept_patches
            assert len(kept) == len(batch.keys) // 2
            assert kept.shape[1] == (counts[: len(kept)] * 0.6).astype(int).max()
            for row, count in zip(kept, counts, strict=False):
                own = row[: int(count * 0.6)]
                assert (np.diff(own) > 0).all()
                assert own[0] >= 0
                assert own[-1] < count
                assert (row[len(own) :] == -1).all()
    assert shapes == {(8, 12, 192), (4, 30, 192)}
