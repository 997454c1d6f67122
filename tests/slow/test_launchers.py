"""The launch scripts: what they start, and that one and two nodes train."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.warm_python import warm_python

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "train"
SHORT = ("--samples_seen", "32", "--device", "cpu")


def environment(folder, **settings):
    """This process's, with a folder's programs before all others and those beside this Python before the rest."""
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | settings


def stub(folder, name, *lines):
    """A program that notes how it was called, then does what `lines` say."""
    note = f'echo "{name} $*" >> "{folder}/calls"'
    (folder / name).write_text("\n".join(["#!/usr/bin/env bash", note, *lines, ""]))
    (folder / name).chmod(0o755)


def calls(folder):
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def launch(folder, script, *words, **settings):
    return subprocess.run(
        ["bash", str(TRAIN / script), *words],
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# ---- what they start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "processes"), [({}, 3), ({"NPROC": "2"}, 2)])
def test_one_node_starts_a_process_per_gpu(tmp_path, settings, processes):
    stub(tmp_path, "torchrun")
    stub(tmp_path, "nvidia-smi", "printf 'GPU 0: a\\nGPU 1: b\\nGPU 2: c\\n'")
    assert launch(tmp_path, "one_node.sh", "demo", "--out", "a b", RESTARTS="3", **settings).returncode == 0
    started = f"torchrun --standalone --nproc-per-node {processes} --max-restarts 3 -m prolip.train demo --out a b"
    assert calls(tmp_path)[-1] == f"{started} --device cuda"


def test_several_nodes_rendezvous_on_the_first(tmp_path):
    stub(tmp_path, "torchrun")
    where = {"NUM_NODES": "2:4", "FIRST_NODE": "10.0.0.1", "NPROC": "4"}
    for rank, is_host in (("0", 1), ("3", 0)):
        assert launch(tmp_path, "multi_node.sh", "demo", NODE_RANK=rank, **where).returncode == 0
        assert calls(tmp_path)[-1] == (
            "torchrun --nnodes 2:4 --nproc-per-node 4 --max-restarts 0 --rdzv-backend c10d --rdzv-id prolip "
            f"--rdzv-endpoint 10.0.0.1:29500 --rdzv-conf is_host={is_host} -m prolip.train demo --device cuda"
        )
    unnamed = launch(tmp_path, "multi_node.sh", "demo", NUM_NODES="2", NODE_RANK="0")
    assert unnamed.returncode != 0
    assert "address of the first machine" in unnamed.stderr


JOB = {"SLURM_JOB_ID": "40007", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}
STEP = (
    "srun --kill-on-bad-exit=1 torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 0 --rdzv-backend c10d "
    "--rdzv-id 40007 --rdzv-endpoint n1:20007 -m prolip.train"
)


def slurm(folder, *, preempted=False):
    when = "2026-01-01T00:00:00" if preempted else "None"
    hosts, job = "printf 'n1\\nn2\\n'", f"echo 'Requeue=1 PreemptTime={when} Reason=None'"
    stub(folder, "scontrol", f'case "$1 $2" in "show hostnames") {hosts};; "show job") {job};; esac')


def test_slurm_starts_a_launcher_per_node(tmp_path):
    slurm(tmp_path)
    stub(tmp_path, "srun", "exit 7")
    assert launch(tmp_path, "slurm.sh", "demo", "--seed", "1", **JOB).returncode == 7
    assert f"{STEP} demo --seed 1 --device cuda" in calls(tmp_path)
    assert not [call for call in calls(tmp_path) if "requeue" in call]


def test_each_task_of_a_slurm_array_trains_its_recipe(tmp_path):
    slurm(tmp_path)
    stub(tmp_path, "srun")
    words = ("one", "two", "three", "--", "--seed", "1")
    assert launch(tmp_path, "slurm.sh", *words, SLURM_ARRAY_TASK_ID="1", **JOB).returncode == 0
    assert f"{STEP} two --seed 1 --device cuda" in calls(tmp_path)
    unended = launch(tmp_path, "slurm.sh", "one", SLURM_ARRAY_TASK_ID="0", **JOB)
    assert unended.returncode != 0
    assert "the recipes of an array end with --" in unended.stderr


NODES = {"NUM_NODES": "2", "NODE_RANK": "0", "FIRST_NODE": "n1"}


def test_a_preempted_job_requeues_itself(tmp_path):
    slurm(tmp_path, preempted=True)
    stub(tmp_path, "srun", "exit 1")
    assert launch(tmp_path, "slurm.sh", "demo", **JOB).returncode == 0
    assert calls(tmp_path)[-1] == "scontrol requeue 40007"


def test_a_job_saves_and_requeues_before_its_time_is_up(tmp_path):
    slurm(tmp_path)
    # The step takes a moment to save when it is told to end.
    stub(tmp_path, "srun", "trap 'sleep 0.3; echo saved >> \"${0%/*}/calls\"; exit 1' TERM", "sleep 30 & wait")
    script = ["bash", str(TRAIN / "slurm.sh"), "demo"]
    with subprocess.Popen(script, env=environment(tmp_path, **JOB), start_new_session=True) as job:
        deadline = time.monotonic() + 30
        while not any(call.startswith("srun") for call in calls(tmp_path)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)  # until both have set their traps
        job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=30) == 0
    assert calls(tmp_path)[-2:] == ["saved", "scontrol requeue 40007"]


# ---- that they train ------------------------------------------------------------------------------------------------


@pytest.fixture
def warm(tmp_path):
    """Has torchrun in `tmp_path`, and the settings with which it starts ranks: none imports PyTorch for itself."""
    warm_python(tmp_path, "torchrun", "-m", "torch.distributed.run")
    return {"PYTHON_EXEC": str(warm_python(tmp_path))}


def test_one_node_trains_with_two_processes(lab, tmp_path, warm):
    done = launch(tmp_path, "one_node.sh", *lab.words("one_node", *SHORT), NPROC="2", **warm)
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stderr
    assert lab.latest("one_node").step == 2


def test_two_nodes_train_together(lab, tmp_path, warm):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    where = NODES | warm | {"FIRST_NODE": "localhost", "PORT": port, "NPROC": "1"}
    script = ["bash", str(TRAIN / "multi_node.sh"), *lab.words("two_nodes", *SHORT)]
    nodes = [
        subprocess.Popen(
            script, env=environment(tmp_path, **where | {"NODE_RANK": rank}), stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    told = [node.communicate(timeout=120)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    assert "2 process(es)" in "".join(told)
    assert lab.latest("two_nodes").step == 2
