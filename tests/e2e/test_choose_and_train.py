"""Embed, select, deduplicate and train from a bucket, each killed once: here and on Ray the results are the same."""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from tests.support.forked import Forked
from tests.support.object_stores import s3_settings
from tests.support.ray_clusters import ray_cluster
from tests.support.remote_shards import BUCKET
from tests.support.servers import fill
from tests.support.small_training import Lab, same_weights, write_shard
from werkzeug.serving import make_server

from prolip.data.selection import read_selection
from prolip.folders import Folder

SHARDS, SAMPLES = 5, 20
"""All 64 images of `write_shard`, and 36 of them once more."""
UNMASKED = ("--data.mask.masked_fraction", "0", "--loss.masked_inclusion_weight", "0")


class Bucket:
    """An object store on loopback that kills a client at its third request of a kind."""

    def __init__(self, folder: Path) -> None:
        self._client: Forked | None = None
        self._kind, self._count = "", 0
        store = DomainDispatcherApplication(create_backend_app)

        def answer(environ: dict[str, Any], start: Any) -> Any:
            if self._kind and re.search(self._kind, f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"):
                self._count += 1
                if self._count == 3 and self._client is not None:
                    self._client.kill()
            return store(environ, start)

        self.server = make_server("127.0.0.1", 0, answer, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        fill(f"http://127.0.0.1:{self.server.port}", BUCKET, folder)

    def run(self, words: list[str], kind: str = "", until: Callable[[], object] = lambda: False) -> int:
        """Run a command, and kill it at a request or as soon as `until` holds; its exit status."""
        with Forked([sys.executable, "-m", "prolip.cli", *words]) as client:
            self._client, self._kind, self._count = client, kind, 0
            while client.poll() is None and not until():
                time.sleep(0.005)
            if until():
                client.kill()
            return client.wait(60)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    (tmp_path / "served").mkdir()
    for shard in range(SHARDS):
        write_shard(tmp_path / "served" / f"{shard}.tar", range(shard * SAMPLES, (shard + 1) * SAMPLES))
    bucket = Bucket(tmp_path / "served")
    s3_settings(monkeypatch, f"http://127.0.0.1:{bucket.server.port}")
    yield bucket
    bucket.server.shutdown()


def chain(bucket: Bucket, lab: Lab, name: str, *engine: str, killed: bool) -> dict[str, bytes]:
    """Embed, choose, drop near-duplicates and train; the bytes of all parts and selections."""
    out, certain, distinct = (
        Folder(f"s3://{BUCKET}/{name}"),
        lab.folder / f"{name}-certain",
        lab.folder / f"{name}-distinct",
    )
    data = ["--shards", f"s3://{BUCKET}/data/{{0..{SHARDS - 1}}}.tar"]
    model = f"--checkpoint {lab.folder}/shared/short --device cpu".split()
    read = ["--embeddings", out.address]
    steps = {
        "PUT .*/image-": ["embed", *model, *data, "--out", out.address, *engine],
        "GET .*/image-0": ["data", "select", *read, "--keep_share", "0.8", "--out", str(certain), *engine],
        "GET .*/image-": [
            "data",
            "dedupe",
            *read,
            *f"--within {certain} --threshold 0.999 --out {distinct}".split(),
            *engine,
        ],
    }
    for kind, words in steps.items():
        if killed:
            assert bucket.run(words, kind) == -9
        assert bucket.run(words) == 0
    small = ["--batch_size", "2", "--samples_seen", "80", "--checkpoint_every", "4", *UNMASKED]
    words = ["train", *lab.words(name, *small, "--data.shards", "--data.selection", str(distinct))]
    if killed:
        assert bucket.run(words, until=lab.has(name, "checkpoints/step_0000000*")) == -9
    assert bucket.run(words) == 0
    parts = {part: out.read(part) for part in out.list() if part.endswith(".parquet")}
    return parts | {kind: (lab.folder / f"{name}-{kind}").read_bytes() for kind in ("certain", "distinct")}


@pytest.mark.usefixtures("short")
def test_killed_commands_end_with_the_same_parts_selections_and_weights(bucket: Bucket, lab: Lab) -> None:
    unharmed = chain(bucket, lab, "unharmed", killed=False)
    assert len(unharmed) == SHARDS + 2
    kept = sum(len(one.rows) for one in read_selection(lab.folder / "unharmed-distinct"))
    assert 1 < kept < 64, "no image twice"
    assert chain(bucket, lab, "here", killed=True) == unharmed
    assert same_weights(lab.latest("here"), lab.latest("unharmed"))
    with ray_cluster(1):
        assert chain(bucket, lab, "ray", "--on", "ray", killed=True) == unharmed
    assert same_weights(lab.latest("ray"), lab.latest("unharmed"))
