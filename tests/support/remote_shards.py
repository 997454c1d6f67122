"""Shards for the tests of remote ones, and the run that every server must give the same batches of."""

import gzip
import hashlib

import numpy as np
from PIL import Image
from tests.support.images import encode
from tests.support.shards import write_tar

from prolip.data import AugmentConfig, BatchLoader, LoaderConfig, StoreConfig, write_index

NUM_SHARDS = 6
SAMPLES = 40
NUM_SAMPLES = sum(SAMPLES + shard for shard in range(NUM_SHARDS))
BUCKET = "prolip-test"
QUICK = StoreConfig(connections=4, retries=12, timeout_s=20)


def write_shards(folder):
    rng = np.random.default_rng(0)
    for shard in range(NUM_SHARDS):
        members = []
        for sample in range(SAMPLES + shard):
            name = f"{shard:03d}-{sample:04d}"
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            members += [
                (f"{name}.jpg", encode(coarse.resize((48, 48)), "JPEG", quality=90)),
                (f"{name}.txt", f"picture {sample} of {shard}".encode()),
            ]
        write_tar(folder / f"{shard:03d}.tar", members)
    for path in sorted(folder.glob("*.tar")):
        with gzip.open(f"{path}.gz", "wb", compresslevel=1) as packed:
            packed.write(path.read_bytes())


def config(shards, index=None, store=QUICK):
    return LoaderConfig(
        shards=(shards,),
        index=None if index is None else str(index),
        batch_size=16,
        image_size=32,
        augment=AugmentConfig(),
        seed=3,
        num_epochs=2,
        shuffle_window=64,
        num_threads=2,
        store=store,
    )


def batches(config, rank=0, world_size=1, resume=None):
    with BatchLoader(config, rank=rank, world_size=world_size, resume=resume) as loader:
        return [batch._replace(images=batch.images.copy(), token_ids=batch.token_ids.copy()) for batch in loader]


def assert_equal(found, expected):
    assert [(batch.keys, batch.cursor) for batch in found] == [(batch.keys, batch.cursor) for batch in expected]
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.token_ids, two.token_ids)


def check(shards, expected, tmp_path, store=QUICK):
    """With an index made of the server's shards, the run is the local one."""
    index = tmp_path / "remote.index"
    _, samples, notes = write_index([shards], index, 2, store)
    assert (samples, notes) == (NUM_SAMPLES, [])
    assert_equal(batches(config(shards, index, store)), expected)


def digest(batches):
    """Of everything in them."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(repr(batch.keys).encode() + batch.images.tobytes() + batch.token_ids.tobytes())
    return digest.hexdigest()


def served_copy(folder, served):
    """A folder of the shards whose content a test may change."""
    served.mkdir()
    for path in folder.glob("*.tar"):
        (served / path.name).write_bytes(path.read_bytes())
    return served
