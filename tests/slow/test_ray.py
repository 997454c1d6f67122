"""An embedding on Ray whose actors, nodes and cluster are killed: the bytes are those of one made here."""

import json
import os
import shutil
import signal
import socket
import sys
import time
from threading import Event

import pytest
import torch
from tests.support.forked import Forked
from tests.support.http_servers import answering, send_file
from tests.support.ray_clusters import processes, ray_cluster, wait_until
from tests.support.shards import members, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main

# Ray leaves logs open.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO name='/tmp/ray/:pytest.PytestUnraisableExceptionWarning"
)


class Ray:
    """Two nodes."""

    def __init__(self, cluster, port):
        self.cluster, self.client = cluster, f"ray://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def ray():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with ray_cluster(2, port) as cluster:
        yield Ray(cluster, port)


UNITS = 14
SERVED = 8
"""After so many shards, the server waits until an actor has been killed, so that no run is over before."""


def parts(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_nothing_is_lost_or_made_twice_when_actors_nodes_and_the_cluster_end(tmp_path, ray):
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=8)
    data = tmp_path / "data"
    data.mkdir()
    for shard in range(UNITS):
        samples = [entry for number in range(shard % 4 + 1) for entry in members(f"k{number}", (number, shard, 9))]
        write_tar(data / f"{shard:02}.tar", samples)
    good = (data / "03.tar").rename(tmp_path / "good.tar")
    (data / "03.tar").write_bytes(b"no archive" * 100)
    out, broken, here, told = (tmp_path / name for name in ("out", "broken", "here", "told"))
    served, released = set[str](), Event()

    def slow_file(request):
        time.sleep(0.3)
        if len(served | {request.path}) > SERVED:
            released.wait(120)
        served.add(request.path)
        send_file(request)

    with answering(slow_file, data) as address:
        words = f"embed --checkpoint {tmp_path}/run --what both --batch_size 2 --device cpu --threads 1".split()
        words += ["--shards", f"{address}/{{00..{UNITS - 1}}}.tar?key=1", "--out"]

        def start(folder, *engine):
            with told.open("wb") as file:
                command = [sys.executable, "-m", "prolip.cli", *words, folder.name, "--on", *engine]
                return Forked(command, stdout=file, stderr=file, cwd=tmp_path)

        # By Ray's client, while an actor is killed and a node is removed.
        with start(out, ray.client) as run:
            wait_until(lambda: (len(parts(out)) >= SERVED and processes("ray::MapWorker")) or run.poll() is not None)
            assert run.poll() is None, told.read_text()
            os.kill(min(processes("ray::MapWorker")), signal.SIGKILL)
            released.set()
            wait_until(lambda: len(parts(out)) >= 2 * SERVED or run.poll() is not None)
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
