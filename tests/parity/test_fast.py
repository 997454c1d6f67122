"""Departure: `decode="fast"` gives other pixels than Pillow. How far away on photographs, and where the same ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.shards import write_tar

from prolip.data import AugmentConfig, BatchLoader, LoaderConfig

CROPS = AugmentConfig(jitter_prob=0.0, gray_prob=0.0)
SIZE = 224


def images(shard: Path, **changes: Any) -> NDArray[np.uint8]:
    """All pictures of a shard, in its order."""
    values: dict[str, Any] = {"image_size": SIZE, "augment": CROPS, **changes}
    loader = BatchLoader(
        LoaderConfig(
            shards=(str(shard),),
            batch_size=16,
            captions=(),
            shuffle_window=0,
            last_batch="keep",
            max_pixels=10**8,
            **values,
        )
    )
    with loader:
        return np.concatenate([batch.images.copy() for batch in loader])


def errors(shard: Path, **changes: Any) -> NDArray[np.int16]:
    exact, fast = (images(shard, decode=mode, **changes).astype(np.int16) for mode in ("exact", "fast"))
    return np.abs(exact - fast)


def noise(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(width).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str = "jpeg", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("augment", [CROPS, None], ids=["crop", "evaluation"])
def test_error_on_photographs(photos: list[Path], tmp_path: Path, augment: AugmentConfig | None) -> None:
    shard = tmp_path / "0.tar"
    write_tar(shard, [(f"{at:03}.jpg", path.read_bytes()) for at, path in enumerate(photos)])
    found = errors(shard, augment=augment)
    by_picture = found.mean(axis=(1, 2, 3))
    figures = {
        "mean": float(found.mean()),
        "95 %": float(np.percentile(found, 95)),
        "99 %": float(np.percentile(found, 99)),
        "99.9 %": float(np.percentile(found, 99.9)),
        "largest": int(found.max()),
        "equal": float((found == 0).mean()),
        "worst picture's mean": float(by_picture.max()),
    }
    print(figures)
    assert figures["mean"] < 1.0, figures


def test_large_pictures_are_shrunk_by_their_transform(tmp_path: Path) -> None:
    shard = tmp_path / "0.tar"
    sizes = [(w, h) for w in (260, 520, 1000, 1900) for h in (300, 600, 2000)]
    kinds = [{"subsampling": kind, "quality": 95} for kind in (0, 1, 2)]
    pictures = [encoded(noise(*size), **kind) for size in sizes for kind in kinds]
    write_tar(shard, [(f"{at:03}.jpg", data) for at, data in enumerate(pictures)])
    found = errors(shard)
    assert found.any(axis=(1, 2, 3)).all(), "some were not decoded by the fast way"
    # Coloured noise is the worst there is: photographs lose a quarter of this.
    assert found.mean() < 3


def test_other_kinds_of_files_have_exact_pixels(tmp_path: Path) -> None:
    shard = tmp_path / "0.tar"
    picture = noise(300, 280)
    files = {
        "a.png": encoded(picture, "png"),
        "b.webp": encoded(picture, "webp"),
        "c.jpg": encoded(picture, progressive=True),
        "d.jpg": encoded(picture.convert("CMYK")),
    }
    write_tar(shard, list(files.items()))
    assert not errors(shard).any()


def test_pixels_do_not_depend_on_threads(tmp_path: Path) -> None:
    shard = tmp_path / "0.tar"
    sizes = [(100 + 7 * at, 90 + 11 * at) for at in range(40)]
    write_tar(shard, [(f"{at:03}.jpg", encoded(noise(*size))) for at, size in enumerate(sizes)])
    one, many = (images(shard, decode="fast", num_threads=threads, image_size=64) for threads in (1, 4))
    assert np.array_equal(one, many)
    jitter = {"augment": AugmentConfig(), "decode": "fast", "image_size": 64}
    assert np.array_equal(images(shard, num_threads=3, **jitter), images(shard, num_threads=2, **jitter))


def test_damage_is_the_same_bad_sample(tmp_path: Path) -> None:
    shard = tmp_path / "0.tar"
    whole = encoded(noise(300, 280))
    write_tar(shard, [("a.jpg", whole), ("b.jpg", whole[: len(whole) // 2]), ("c.jpg", whole)])
    kept = {mode: images(shard, decode=mode, max_bad_fraction=0.9) for mode in ("exact", "fast")}
    assert len(kept["exact"]) == len(kept["fast"]) == 2
