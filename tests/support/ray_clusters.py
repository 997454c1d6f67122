"""Ray clusters of several nodes on this machine, which end with their block, whatever happened."""

import fcntl
import os
import signal
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
"""Smallest node; it is not asked whether the machine has its memory."""


@contextmanager
def ray_cluster(nodes, client_port=None):
    """A cluster whose nodes have one CPU each; what starts in the block finds it by RAY_ADDRESS.

    Only one lives at a time on this machine, since each takes more than a gigabyte.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        Path(tempfile.gettempdir(), "prolip-ray-cluster.lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("RAY_AUTH_MODE", "disabled")  # no token in the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # by default 15, which leaves no time for workers beside other tests
        # gRPC's handlers of fork end the server that Ray starts for a client (ray-project/ray#63202).
        patch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
        patch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "2")  # after which a program gives up; by default 60
        from ray.cluster_utils import Cluster

        head = NODE | {"include_dashboard": False, "ray_client_server_port": client_port}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(nodes - 1):
                cluster.add_node(**NODE)
            patch.setenv("RAY_ADDRESS", cluster.address)
            yield cluster
        finally:
            left = processes()
            cluster.shutdown()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def processes(named=""):
    """The processes of clusters that this process started, by the beginning of their titles."""
    parents, titles = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_text()
    found, above = set[int](), {os.getpid()}
    while above := {pid for pid, parent in parents.items() if parent in above}:
        found |= above
    return {pid for pid in found if "ray" in titles.get(pid, "") and titles[pid].startswith(named)}


def wait_until(holds, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
