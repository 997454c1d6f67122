"""Opening a selection of many shards, and reading it beside shards that hold the same samples alone.

Each contender is a process of its own. The many shards are hard links to twenty files with small images.
"""

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tests.bench.test_remote import SHARDS, spread, write_shards
from tests.support.images import encode
from tests.support.shards import read_tar, write_tar

from prolip.data import StoreConfig, write_index
from prolip.store.selection import Chosen, write_selection

RUN = """
import json, re, sys, time
from prolip.data import AugmentConfig, BatchLoader, LoaderConfig

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

shards, index, selection, side, epochs = json.loads(sys.argv[1])
config = LoaderConfig(
    shards=(shards,), index=index, selection=selection, batch_size=32, image_size=side, augment=AugmentConfig(),
    captions=(), num_threads=2, num_epochs=epochs,
)
before, begun = peak(), time.perf_counter()
with BatchLoader(config) as loader:
    opened, samples = time.perf_counter(), loader.num_samples
    batches = iter(loader)
    next(batches)
    first, grown, cpu, images = time.perf_counter(), peak() - before, time.process_time(), 0
    if epochs > 1:
        images = sum(len(batch.keys) for batch in batches)
rate = images / (time.perf_counter() - first)
print(json.dumps({
    "samples": samples, "open": opened - begun, "first": first - begun, "MiB": grown, "rate": rate,
    "cpu": (time.process_time() - cpu) / max(images, 1) * 1e6,
}))
"""


def run(*words):
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(words)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def select(folder, count, names):
    """Index shards of a folder, and choose 30 % of the samples of each; gives their pattern and the rows."""
    pattern = f"{folder}/{{{names[0]}..{names[-1]}}}.tar"
    write_index([pattern], folder / "index", 2, StoreConfig())
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.permutation(count)[: count * 3 // 10]).astype(np.uint32) for _ in names]
    write_selection(
        folder / "chosen", (Chosen(f"{folder}/{name}.tar", "", of) for name, of in zip(names, rows, strict=True))
    )
    return pattern, [of.tolist() for of in rows]


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_a_selection_opens_quickly_and_is_read_as_fast_as_a_copy(tmp_path, full):
    many, whole, copied = (tmp_path / name for name in ("many", "whole", "copied"))
    for folder in (many, whole, copied):
        folder.mkdir()
    names = [f"{shard:05d}" for shard in range(20_000 if full else 8)]
    image = encode(Image.new("RGB", (32, 32), (1, 2, 3)), "JPEG")
    for shard, name in enumerate(names):
        if shard < 20:
            write_tar(many / f"{name}.tar", [(f"{shard}-{row}.jpg", image) for row in range(250)])
        else:
            (many / f"{name}.tar").hardlink_to(many / f"{names[shard % 20]}.tar")
    pattern, _ = select(many, 250, names)
    for chosen in (None, f"{many}/chosen"):
        runs = [run(pattern, f"{many}/index", chosen, 32, 1) for _ in range(3 if full else 1)]
        print({key: spread([one[key] for one in runs], ",.2f") for key in ("samples", "open", "first", "MiB")})
    assert not full or statistics.median(one["open"] for one in runs) < 8

    size = 200 if full else 20
    write_shards(whole, size)
    pattern, kept = select(whole, size, [f"{shard:03d}" for shard in range(SHARDS)])
    for shard, rows in enumerate(kept):
        members = read_tar(whole / f"{shard:03d}.tar")
        write_tar(copied / f"{shard:03d}.tar", [members[2 * row + one] for row in rows for one in (0, 1)])
    copy = pattern.replace(str(whole), str(copied))
    write_index([copy], copied / "index", 2, StoreConfig())
    sides = ((pattern, f"{whole}/index", f"{whole}/chosen"), (copy, f"{copied}/index", None))
    pairs = [[run(*side, 224, 16 if full else 4) for side in sides] for _ in range(5 if full else 1)]
    for key in ("rate", "cpu"):
        ratios = [ours[key] / theirs[key] for ours, theirs in pairs]
        print(f"{key} of a selection: {spread(ratios, '.3f')} of a copy's")
        assert not full or 0.97 < statistics.median(ratios) < 1.03
