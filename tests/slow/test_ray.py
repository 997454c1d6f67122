"""Embed, select, deduplicate and train, killed on the way: the bytes are the same, here and on Ray."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from moto.server import DomainDispatcherApplication, create_backend_app
from tests.support.forked import Forked
from tests.support.http_servers import Request, answering, send_file
from tests.support.object_stores import s3_settings
from tests.support.ray_clusters import processes, ray_cluster, wait_until
from tests.support.remote_shards import BUCKET
from tests.support.servers import fill
from tests.support.shards import members, write_tar
from tests.support.small_training import Lab, same_weights, write_shard
from tests.support.untrained_run import write_run
from werkzeug.serving import make_server

from prolip.cli import main
from prolip.store.folder import Folder
from prolip.store.selection import read_selection

# Ray leaves logs open.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO name='/tmp/ray/:pytest.PytestUnraisableExceptionWarning"
)
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


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    folder = tmp_path_factory.mktemp("served")
    for shard in range(SHARDS):
        write_shard(folder / f"{shard}.tar", range(shard * SAMPLES, (shard + 1) * SAMPLES))
    bucket = Bucket(folder)
    with pytest.MonkeyPatch.context() as patch:
        s3_settings(patch, f"http://127.0.0.1:{bucket.server.port}")
        yield bucket
    bucket.server.shutdown()


class Ray:
    """Two nodes, which know the bucket."""

    def __init__(self, cluster: Any, port: int) -> None:
        self.cluster, self.client = cluster, f"ray://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def ray(bucket: Bucket) -> Iterator[Ray]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with ray_cluster(2, port) as cluster:
        yield Ray(cluster, port)


def chain(bucket: Bucket, lab: Lab, name: str, *engine: str, kills: int) -> dict[str, bytes]:
    """Embed, choose and drop near-duplicates, the first commands killed once; the bytes of all parts and selections."""
    out, certain, distinct = (
        Folder(f"s3://{BUCKET}/{name}"),
        lab.folder / f"{name}-certain",
        lab.folder / f"{name}-distinct",
    )
    embed = f"embed --checkpoint {lab.folder}/shared/short --device cpu --out {out.address} --shards".split()
    select = f"data select --embeddings {out.address} --keep_share 0.8 --out {certain}".split()
    dedupe = f"data dedupe --embeddings {out.address} --within {certain} --threshold 0.999 --out {distinct}".split()
    steps = (
        ("PUT .*/image-", [*embed, f"s3://{BUCKET}/data/{{0..{SHARDS - 1}}}.tar"]),
        ("GET .*/image-0", select),
        ("GET .*/image-", dedupe),
    )
    for number, (kind, words) in enumerate(steps):
        if number < kills:
            assert bucket.run([*words, *engine], kind) == -9
        assert bucket.run([*words, *engine]) == 0
    parts = {part: out.read(part) for part in out.list() if part.endswith(".parquet")}
    return parts | {path.name.removeprefix(name): path.read_bytes() for path in (certain, distinct)}


@pytest.mark.usefixtures("short")
def test_killed_commands_end_with_the_same_parts_selections_and_weights(bucket, lab, ray):
    unharmed = chain(bucket, lab, "chain-whole", kills=0)
    assert len(unharmed) == SHARDS + 2
    kept = sum(len(one.rows) for one in read_selection(lab.folder / "chain-whole-distinct"))
    assert 1 < kept < 64, "no image twice"
    assert chain(bucket, lab, "chain-here", kills=3) == unharmed
    assert chain(bucket, lab, "chain-ray", "--on", "ray", "--workers", "1", kills=1) == unharmed
    small = ["--batch_size", "2", "--samples_seen", "80", "--checkpoint_every", "4", *UNMASKED, "--data.shards"]
    for name in ("chain-whole", "chain-here"):
        words = ["train", *lab.words(name, *small, "--data.selection", str(lab.folder / f"{name}-distinct"))]
        if name == "chain-here":
            assert bucket.run(words, until=lab.has(name, "checkpoints/step_0000000*")) == -9
        assert bucket.run(words) == 0
    assert same_weights(lab.latest("chain-here"), lab.latest("chain-whole"))


UNITS = 14
HELD = 8
"""From this shard on, the server waits until an actor has been killed, so that no run is over before."""


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_nothing_is_lost_or_made_twice_when_actors_nodes_and_the_cluster_end(tmp_path, ray):
    """The last test of the cluster."""
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=8)
    data = tmp_path / "data"
    data.mkdir()
    for shard in range(UNITS):
        samples = [entry for number in range(shard % 4 + 1) for entry in members(f"k{number}", (number, shard, 9))]
        write_tar(data / f"{shard:02}.tar", samples)
    good = (data / "03.tar").rename(tmp_path / "good.tar")
    (data / "03.tar").write_bytes(b"no archive" * 100)
    out, broken, here, told = (tmp_path / name for name in ("out", "broken", "here", "told"))
    released = Event()

    def slow_file(request: Request) -> None:
        time.sleep(0.3)
        if int(request.path[1:3]) >= HELD:
            released.wait(120)
        send_file(request)

    with answering(slow_file, data) as address:
        words = f"embed --checkpoint {tmp_path}/run --what both --batch_size 2 --device cpu --threads 1".split()
        words += ["--shards", f"{address}/{{00..{UNITS - 1}}}.tar?key=1", "--out"]

        def start(folder: Path, *engine: str) -> Forked:
            with told.open("wb") as file:
                command = [sys.executable, "-m", "prolip.cli", *words, folder.name, "--on", *engine]
                return Forked(command, stdout=file, stderr=file, cwd=tmp_path)

        # By Ray's client, while an actor is killed and a node is removed.
        with start(out, ray.client) as run:
            wait_until(lambda: (len(parts(out)) >= HELD and processes("ray::MapWorker")) or run.poll() is not None)
            assert run.poll() is None, told.read_text()
            os.kill(min(processes("ray::MapWorker")), signal.SIGKILL)
            released.set()
            wait_until(lambda: len(parts(out)) >= 2 * HELD or run.poll() is not None)
            ray.cluster.remove_node(*ray.cluster.worker_nodes)
            assert run.wait(120) == 2, told.read_text()
        assert "1 of " in told.read_text(), "the others are finished"
        assert "03.tar" in told.read_text()
        assert "key=1" not in told.read_text()
        assert len(parts(out)) == 2 * (UNITS - 1)

        # The head is killed; what was made stays.
        with start(broken, "ray") as run:
            wait_until(lambda: len(parts(broken)) > 2 or run.poll() is not None)
            ray.cluster.remove_node(ray.cluster.head_node, allow_graceful=False)
            assert run.wait(120) != 0
        whole = [path for text in broken.glob("text-*") for path in (text, broken / text.name.replace("text", "image"))]
        made = {path: path.stat().st_mtime_ns for path in whole}
        assert 0 < len(made) < 2 * UNITS

        # What is left of either, and all parts, here.
        shutil.copy(good, data / "03.tar")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as an actor; sums of another number may differ in their last bits
        assert [main([*words, str(folder)]) for folder in (out, broken, here)] == [0, 0, 0]
        torch.set_num_threads(threads)
    assert made.items() <= {path: path.stat().st_mtime_ns for path in broken.glob("*.parquet")}.items()
    assert parts(out) == parts(broken) == parts(here)
    manifests = [json.loads((folder / "manifest.json").read_text()) | {"run": {}} for folder in (out, broken, here)]
    assert manifests[0] == manifests[1] == manifests[2]
    assert manifests[0]["complete"]
