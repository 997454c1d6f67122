"""Evaluation loaders: every sample once, in the order of the files, with the pixels of open_clip's own transform."""

import io

import numpy as np
import pytest
from open_clip.transform import image_transform
from PIL import Image
from tests.support.images import encode
from tests.support.shards import TOKENIZER, config, write_tar
from torchvision.transforms import Compose

from prolip.data import BatchLoader, preprocess_image

SIZE = 24
# Wider, higher, smaller and far larger than the crop; odd margins round either way.
SIZES = [(24, 24), (25, 24), (24, 31), (97, 40), (40, 97), (7, 90), (23, 11), (200, 133), (133, 201), (64, 27), (1, 1)]
SHARDS = 3


def encoded_images():
    """Images by member name, in the order in which they are written; names are not in the order of the alphabet."""
    draw = np.random.default_rng(7)
    made = {}
    for number in range(SHARDS * len(SIZES)):
        width, height = SIZES[number % len(SIZES)]
        image = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        kind, mode = [("jpg", "RGB"), ("png", "RGBA"), ("webp", "RGB"), ("png", "L"), ("jpg", "CMYK")][number % 5]
        picture = encode(image.convert(mode), {"jpg": "jpeg"}.get(kind, kind))
        made[f"k{(number * 7) % 100:02}.{kind}"] = picture
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("evaluation"), encoded_images()
    names = list(made)
    for shard in range(SHARDS):
        part = names[shard * len(SIZES) : (shard + 1) * len(SIZES)]
        members = [(name, made[name]) for name in part]
        members += [(f"{name.split('.')[0]}.txt", f"caption of {name}".encode()) for name in part]
        members.sort(key=lambda member: part.index(next(n for n in part if n.split(".")[0] == member[0].split(".")[0])))
        write_tar(folder / f"{shard}.tar", members)
    return str(folder / "{0..2}.tar"), made


def test_evaluation_pixels_and_order_equal_open_clips(written):
    pattern, made = written
    transform = image_transform(SIZE, is_train=False)
    # All of it but the last two, which make floats of the pixels.
    to_pixels = Compose(transform.transforms[:-2])
    expected = [np.asarray(to_pixels(Image.open(io.BytesIO(data)))) for data in made.values()]
    settings = config(pattern, image_size=SIZE, batch_size=8, shuffle_window=0, last_batch="keep")
    with BatchLoader(settings) as loader:
        batches = [(batch.keys, batch.images.copy(), batch.token_ids.copy()) for batch in loader]
        assert loader.num_samples == len(made)
    assert [len(keys) for keys, _, _ in batches] == [8, 8, 8, 8, 1]
    assert [key for keys, _, _ in batches for key in keys] == [name.split(".")[0] for name in made]
    assert np.array_equal(np.concatenate([images for _, images, _ in batches]), np.stack(expected))
    assert all(ids.shape == (1, len(keys), TOKENIZER.context_length) for keys, _, ids in batches)
    for data, pixels in zip(made.values(), expected, strict=True):
        assert np.array_equal(preprocess_image(data, SIZE), pixels)


def test_ranks_read_contiguous_parts_and_every_sample_once(written):
    pattern, made = written
    keys = []
    for rank in range(4):
        settings = config(pattern, image_size=SIZE, batch_size=5, shuffle_window=0, last_batch="keep", captions=())
        with BatchLoader(settings, rank=rank, world_size=4) as loader:
            sizes = [len(batch.keys) for batch in loader]
            keys += [key for batch in loader for key in batch.keys]
        assert sum(sizes) in {8, 9}
        assert sizes[:-1] == [5] * (len(sizes) - 1)
    assert keys == [name.split(".")[0] for name in made]
