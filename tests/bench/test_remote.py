"""Batches from a server on loopback against batches from the disk, in one run: `pytest -m bench -s tests/bench`.

Each contender is a process of its own, so that its CPU time is its own; the server's and the proxy's are not in it. The
proxy adds 50 ms to every request, as a distant server does.
"""

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tests.bench.side_by_side import table
from tests.support import servers
from tests.support.images import encode
from tests.support.shards import write_tar

from prolip.data import StoreConfig, write_index

SHARDS, DELAY = 8, 0.05
RUN = """
import json
import sys
import time
from prolip.data import AugmentConfig, BatchLoader, LoaderConfig, StoreConfig

shards, index, store = sys.argv[1:]
config = LoaderConfig(
    shards=(shards,), index=index, batch_size=128, image_size=224, augment=AugmentConfig(), num_threads=2,
    store=StoreConfig(**json.loads(store)),
)
begun, images, first = time.perf_counter(), 0, None
with BatchLoader(config) as loader:
    for batch in loader:
        first = first or time.perf_counter() - begun
        images += len(batch.keys)
seconds = time.perf_counter() - begun
print(json.dumps({"rate": images / seconds, "cpu": time.process_time() / images * 1e6, "first": first}))
"""


def write_shards(folder, images_per_shard):
    """Images of the size of photographs, about 100 kB each; gives the bytes of all."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (80, 96, 3), dtype=np.uint8))
        images.append(encode(coarse.resize((480, 400), Image.Resampling.BICUBIC), "JPEG", quality=94))
    for shard in range(SHARDS):
        members = [
            (f"{shard:03d}-{sample:04d}.{suffix}", content)
            for sample in range(images_per_shard)
            for suffix, content in (("jpg", images[sample % 20]), ("txt", b"a picture"))
        ]
        write_tar(folder / f"{shard:03d}.tar", members)
    return sum(path.stat().st_size for path in folder.iterdir())


def measured(shards, index, **store):
    command = [sys.executable, "-c", RUN, shards, str(index), json.dumps(store)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def spread(values, form):
    return f"{statistics.median(values):{form}} ({min(values):{form}} – {max(values):{form}})"


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_reading_remote_shards_costs_little_more_than_local_ones(tmp_path, full):
    folder = tmp_path / "shards"
    folder.mkdir()
    size = write_shards(folder, 200 if full else 20)
    with (
        servers.nginx(folder, tmp_path) as url,
        servers.FaultProxy(url, seed=0, share=0, delay=DELAY) as distant,
    ):
        places = {
            "local files": (str(folder), {}),
            "nginx": (url, {}),
            "nginx, 50 ms away": (distant.url, {}),
            "the same, one request at a time, nothing ahead": (
                distant.url,
                {"connections": 1, "read_ahead_bytes": 2**20},
            ),
        }
        runs = {name: [] for name in places}
        for name, (place, _) in places.items():
            write_index([f"{place}/{{000..{SHARDS - 1:03d}}}.tar"], tmp_path / f"{name}.index", 2, StoreConfig())
        for _ in range(5 if full else 1):
            for name, (place, store) in places.items():
                shards = f"{place}/{{000..{SHARDS - 1:03d}}}.tar"
                runs[name].append(measured(shards, tmp_path / f"{name}.index", **store))
    local = runs["local files"]
    rows = []
    for name, of_it in runs.items():
        ratios = {key: [one[key] / two[key] for one, two in zip(of_it, local, strict=True)] for key in ("rate", "cpu")}
        row = [name, spread([run["rate"] for run in of_it], ",.0f"), spread(ratios["rate"], ".2f")]
        row += [spread([run["cpu"] for run in of_it], ",.0f"), spread(ratios["cpu"], ".2f")]
        rows.append([*row, spread([run["first"] for run in of_it], ".2f")])
    heads = ["where", "images/s", "of local", "CPU µs an image", "of local", "first batch, s"]
    print(f"\n{SHARDS} shards of {size / SHARDS / 2**20:.0f} MiB", table(heads, rows))
    cpu = [one["cpu"] / two["cpu"] for one, two in zip(runs["nginx"], local, strict=True)]
    assert not full or statistics.median(cpu) < 1.5
