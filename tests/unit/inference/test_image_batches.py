"""Image batches of models: the loader's pixels, or open_clip's own transform where they differ."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tests.support.datacomp_sets import encoded_image, preprocess_of
from tests.support.images import encode
from tests.support.shards import write_tar

from prolip.data import DataError
from prolip.inference.image_batches import decoded_ahead, image_batches

CPU = torch.device("cpu")
SETTINGS = [
    {"size": 20},
    {"size": 33, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    {"size": 20, "resize_mode": "squash"},
    {"size": 20, "interpolation": "bilinear"},
    {"size": 20, "resize_mode": "longest", "fill_color": 9},
    {"size": [16, 24]},
]


def gray() -> bytes:
    return encode(Image.effect_noise((50, 31), 80), "jpeg")


@pytest.fixture
def encoded() -> list[bytes]:
    draw = random.Random(5)
    return [*(encoded_image(draw, kind) for kind in ("png", "jpeg", "webp", "jpeg") for _ in range(3)), gray()]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_pixels_of_image_batches_equal_open_clips(
    settings: dict[str, Any], encoded: list[bytes], tmp_path: Path
) -> None:
    write_tar(tmp_path / "a.tar", [(f"k{n:02}.png", data) for n, data in enumerate(encoded)])
    transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    expected = torch.stack([transform(Image.open(io.BytesIO(data))) for data in encoded])
    preprocess = preprocess_of(settings)
    batches = list(image_batches(preprocess, [str(tmp_path / "a.tar")], CPU, 5))
    assert [len(batch.keys) for batch in batches] == [5, 5, 3]
    assert [key for batch in batches for key in batch.keys] == [f"k{n:02}" for n in range(13)]
    found = torch.cat([batch.images for batch in batches])
    if preprocess.transform is None:
        std = torch.tensor(preprocess.std)[:, None, None]
        pixels = [
            ((images * std) * 255 + torch.tensor(preprocess.mean)[:, None, None] * 255) for images in (found, expected)
        ]
        assert torch.equal(pixels[0].round(), pixels[1].round())
        assert torch.allclose(found, expected, atol=2e-6)
    else:
        assert torch.equal(found, expected)
    assert (preprocess.transform is None) is (settings in SETTINGS[:2])


BOTH = pytest.mark.parametrize("settings", [{"size": 20}, {"size": 20, "resize_mode": "squash"}], ids=str)


@BOTH
def test_unreadable_images_are_skipped_up_to_1_percent(
    settings: dict[str, Any], encoded: list[bytes], tmp_path: Path
) -> None:
    """One of 150 is no fault, two are: an image that cannot be decoded, or a sample without one."""
    preprocess, shard = preprocess_of(settings), tmp_path / "a.tar"
    members = [(f"k{n:03}.png", encoded[n % 3]) for n in range(150)]
    members.insert(7, ("k006.json", b'{"n": 6}'))
    members[20] = ("k019.png", b"no image")
    write_tar(shard, members)
    batches = list(image_batches(preprocess, [str(shard)], CPU, 64, keep=("json", "png")))
    keys = [key for batch in batches for key in batch.keys]
    assert keys == [f"k{n:03}" for n in range(150) if n != 19]
    records, images = (
        [member for batch in batches for member in batch.members[extension]] for extension in ("json", "png")
    )
    assert records[5:8] == [None, b'{"n": 6}', None]
    assert images == [encoded[n % 3] for n in range(150) if n != 19]
    for extension in ("png", "cls"):
        members[21:23] = [(f"k02{n}.{extension}", b"no image") for n in range(2)]
        write_tar(shard, members)
        with pytest.raises(DataError, match=r"a\.tar"):
            list(image_batches(preprocess, [str(shard)], CPU, 64))


@BOTH
@pytest.mark.parametrize("fault", ["truncated", "no archive"])
def test_a_damaged_shard_is_always_an_error(
    fault: str, settings: dict[str, Any], encoded: list[bytes], tmp_path: Path
) -> None:
    write_tar(tmp_path / "a.tar", [(f"k{n:03}.png", encoded[n % 3]) for n in range(200)])
    whole = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "a.tar").write_bytes(whole[:-100] if fault == "truncated" else b"no archive" * 200)
    with pytest.raises(DataError, match=r"a\.tar"):
        list(image_batches(preprocess_of(settings), [str(tmp_path / "a.tar")], CPU, 64))


def test_the_next_batch_is_decoded_ahead_of_use() -> None:
    read: list[int] = []

    def batches() -> Iterator[range]:
        for first in (0, 2, 4):
            read.append(first)
            yield range(first, first + 2)

    found = decoded_ahead(batches(), lambda number: number**2, 1)
    assert next(found) == [(0, 0), (1, 1)]
    assert read == [0, 2]
    assert list(found) == [[(2, 4), (3, 9)], [(4, 16), (5, 25)]]
