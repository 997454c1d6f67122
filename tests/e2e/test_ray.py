"""`prolip embed` on Ray: the bytes of a run without it, though actors, nodes and the whole cluster are lost."""

import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from threading import Event

import pytest
import torch
from tests.support.forked import Forked
from tests.support.http_servers import Request, answering, send_file
from tests.support.ray_clusters import processes, ray_cluster, wait_until
from tests.support.shards import members, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main

SHARDS = 14
HELD = 8
"""From this shard on, the server waits until an actor has been killed, so that no run is over before."""


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO name='/tmp/ray/:pytest.PytestUnraisableExceptionWarning"
)
def test_nothing_is_lost_or_made_twice_when_actors_nodes_and_the_cluster_end(tmp_path: Path) -> None:
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=8)
    data = tmp_path / "data"
    data.mkdir()
    for shard in range(SHARDS):
        samples = [entry for number in range(shard % 4 + 1) for entry in members(f"k{number}", (number, shard, 9))]
        write_tar(data / f"{shard:02}.tar", samples)
    good = (data / "03.tar").rename(tmp_path / "good.tar")
    (data / "03.tar").write_bytes(b"no archive" * 100)
    out, told = tmp_path / "out", tmp_path / "told"
    released = Event()

    def slow_file(request: Request) -> None:
        time.sleep(0.3)
        if int(request.path[1:3]) >= HELD:
            released.wait(120)
        send_file(request)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with answering(slow_file, data) as address:
        words = [*f"embed --checkpoint {tmp_path}/run --shards".split(), f"{address}/{{00..{SHARDS - 1}}}.tar?key=1"]
        words += ["--what", "both", "--batch_size", "2", "--device", "cpu", "--threads", "1", "--out"]

        def start(on: str) -> Forked:
            command = [sys.executable, "-m", "prolip.cli", *words, "out", "--on", on]
            with told.open("wb") as file:
                return Forked(command, stdout=file, stderr=file, cwd=tmp_path)

        # The head is killed; what was made stays.
        with ray_cluster(1) as cluster, start("ray") as run:
            wait_until(lambda: len(parts(out)) > 2 or run.poll() is not None)
            cluster.remove_node(cluster.head_node, allow_graceful=False)
            assert run.wait(120) != 0
        whole = [path for text in out.glob("text-*") for path in (text, out / text.name.replace("text", "image"))]
        made = {path: path.stat().st_mtime_ns for path in whole}
        assert 0 < len(made) < 2 * SHARDS

        # The rest, by Ray's client, while an actor is killed and a node is removed.
        with ray_cluster(3, port) as cluster, start(f"ray://127.0.0.1:{port}") as run:
            wait_until(lambda: (len(parts(out)) >= HELD and processes("ray::MapWorker")) or run.poll() is not None)
            assert run.poll() is None, told.read_text()
            os.kill(min(processes("ray::MapWorker")), signal.SIGKILL)
            released.set()
            wait_until(lambda: len(parts(out)) >= 2 * HELD or run.poll() is not None)
            cluster.remove_node(list(cluster.worker_nodes)[-1])
            assert run.wait(120) == 2, told.read_text()
        assert "1 of " in told.read_text(), "the others are finished"
        assert "03.tar" in told.read_text()
        assert "key=1" not in told.read_text()
        assert len(parts(out)) == 2 * (SHARDS - 1)
        assert made.items() <= {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}.items()

        # The last part and all parts, here.
        shutil.copy(good, data / "03.tar")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as an actor; sums of another number may differ in their last bits
        assert [main([*words, str(folder)]) for folder in (out, tmp_path / "here")] == [0, 0]
        torch.set_num_threads(threads)
    assert parts(out) == parts(tmp_path / "here")
    manifests = [
        json.loads((folder / "manifest.json").read_text()) | {"run": {}} for folder in (out, tmp_path / "here")
    ]
    assert manifests[0] == manifests[1]
    assert manifests[0]["complete"]
