"""Image batches of models: the loader's pixels, or open_clip's own transform where they differ."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tests.support.datacomp_sets import encoded_image, preprocess_of
from tests.support.images import encode
from tests.support.shards import write_tar

from prolip.data import DataError
from prolip.data.samples import read_record
from prolip.errors import UserError
from prolip.pretrained.image_batches import DecodedAhead, image_batches

CPU = torch.device("cpu")
SETTINGS = [
    {"size": 20},
    {"size": 33, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    {"size": 20, "interpolation": "random"},
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
    through_loader = settings.get("resize_mode", "shortest") == "shortest" and settings["size"] != [16, 24]
    assert (preprocess.transform is None) is (through_loader and settings.get("interpolation") != "bilinear")


@pytest.mark.parametrize("settings", [{"size": 20}, {"size": 20, "resize_mode": "squash"}], ids=str)
def test_unreadable_images_are_skipped_up_to_1_percent(
    settings: dict[str, Any], encoded: list[bytes], tmp_path: Path
) -> None:
    preprocess, shard = preprocess_of(settings), tmp_path / "a.tar"
    members = [(f"k{n:03}.png", encoded[n % 3]) for n in range(150)]
    members.insert(7, ("k006.json", b'{"n": 6}'))
    members[20] = ("k019.png", b"no image")
    write_tar(shard, members)
    batches = list(image_batches(preprocess, [str(shard)], CPU, 64, keep=("json", "png")))
    keys = [key for batch in batches for key in batch.keys]
    assert keys == [f"k{n:03}" for n in range(150) if n != 19]
    assert all(list(batch.members) == ["json", "png"] for batch in batches)
    records, images = (
        [member for batch in batches for member in batch.members[extension]] for extension in ("json", "png")
    )
    assert [read_record(*each) for each in zip(keys[5:8], records[5:8], strict=True)] == [None, {"n": 6}, None]
    assert images == [encoded[n % 3] for n in range(150) if n != 19]
    write_tar(shard, [(name, b"no image" if n % 3 == 0 else data) for n, (name, data) in enumerate(members)])
    rule = r"a\.tar: \d+ of \d+ images cannot be read, more than 1%: .*k000"
    with pytest.raises(DataError, match=rule) as damaged:  # at once, not after the last image
        next(image_batches(preprocess, [str(shard)], CPU, 64))
    assert "max_bad_fraction" not in str(damaged.value), "an option of training alone"


@pytest.mark.parametrize("settings", [{"size": 20}, {"size": 20, "resize_mode": "squash"}], ids=str)
@pytest.mark.parametrize("images", [148, 149])
def test_samples_without_an_image_count_as_bad(
    images: int, settings: dict[str, Any], encoded: list[bytes], tmp_path: Path
) -> None:
    """One in a hundred may be bad: one of 150 is no fault, two are."""
    kinds = ["png" if n < images else "cls" for n in range(150)]
    write_tar(tmp_path / "a.tar", [(f"k{n:03}.{kind}", encoded[n % 3]) for n, kind in enumerate(kinds)])
    batches = image_batches(preprocess_of(settings), [str(tmp_path / "a.tar")], CPU, 64)
    if images == 149:
        assert sum(len(batch.keys) for batch in batches) == 149
    else:
        with pytest.raises(DataError, match="2 of 150"):
            list(batches)


@pytest.mark.parametrize("settings", [{"size": 20}, {"size": 20, "resize_mode": "squash"}], ids=str)
def test_a_truncated_shard_is_always_an_error(settings: dict[str, Any], encoded: list[bytes], tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"k{n:03}.png", encoded[n % 3]) for n in range(200)])
    whole = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "a.tar").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"a\.tar: a shard is damaged"):
        list(image_batches(preprocess_of(settings), [str(tmp_path / "a.tar")], CPU, 64))


@pytest.mark.parametrize("settings", [{"size": 20}, {"size": 20, "resize_mode": "squash"}], ids=str)
def test_a_file_that_is_no_archive_is_named(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive" * 200)
    with pytest.raises(DataError, match=r"a\.tar"):
        list(image_batches(preprocess_of(settings), [str(tmp_path / "a.tar")], CPU, 4))


@pytest.mark.parametrize("settings", [{"size": 20}, {"size": 20, "resize_mode": "squash"}], ids=str)
def test_a_batch_of_no_image_is_refused_by_the_name_of_the_option(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^batch_size is 0: it must be at least 1"):
        list(image_batches(preprocess_of(settings), ["a.tar"], CPU, 0))


def test_an_invalid_json_record_is_named() -> None:
    with pytest.raises(DataError, match="sample k: cannot parse its json"):
        read_record("k", b"{")


def test_the_next_batch_is_decoded_ahead_of_use() -> None:
    read: list[int] = []

    def batches() -> Iterator[range]:
        for first in (0, 2, 4):
            read.append(first)
            yield range(first, first + 2)

    ahead = DecodedAhead(batches(), lambda number: number**2, 1)
    found = iter(ahead)
    assert next(found) == [(0, 0), (1, 1)]
    assert read == [0, 2]
    assert list(found) == [[(2, 4), (3, 9)], [(4, 16), (5, 25)]]
    assert ahead.ready == 0


def test_by_default_one_thread_decodes_per_usable_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prolip.pretrained.image_batches.usable_cores", lambda: 1)
    decoding = DecodedAhead([range(9)], lambda _: current_thread().name, 0)
    assert {name for items in decoding for _, name in items} == {"decode_0"}


def test_a_decoding_error_cancels_the_waiting_images() -> None:
    decoded: list[int] = []

    def decode(number: int) -> int:
        decoded.append(number)
        if number:
            Event().wait(0.02)
        return 1 // number

    with pytest.raises(ZeroDivisionError):
        list(DecodedAhead([range(99)], decode, 1))
    assert len(decoded) < 99
