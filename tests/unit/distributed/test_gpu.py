"""Whether a process uses a GPU; it never falls back to the CPU when torch cannot use the GPU."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from tests.support.machines import TOO_OLD, machine

from prolip.distributed import Ranks, find_device, join, wants_gpu
from prolip.errors import UserError


@pytest.mark.parametrize(("device", "expected"), [("auto", True), ("cuda", True), ("cpu", False)])
def test_a_usable_gpu_is_used_unless_the_cpu_is_asked_for(
    device: str, expected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=True)
    assert wants_gpu(device) is expected


def test_without_a_gpu_auto_means_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=False, usable=False)
    assert not wants_gpu("auto")
    assert not wants_gpu("cpu")
    with pytest.raises(UserError, match=r'device is "cuda", but torch sees no GPU: The NVIDIA driver .* too old'):
        wants_gpu("cuda")


def test_a_gpu_that_torch_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=False)
    with pytest.raises(UserError) as refused:
        wants_gpu("auto")
    assert str(refused.value) == (
        f'device is "auto", but torch cannot use the GPU {tmp_path}/nvidia0 ({TOO_OLD}): '
        'update its driver, install a torch that fits it, or use the CPU (device "cpu", or CUDA_VISIBLE_DEVICES=)'
    )
    assert not wants_gpu("cpu")


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_hidden_gpu_is_not_reported(visible: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert not wants_gpu("auto")


def test_a_gpu_of_another_job_is_not_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=False, usable=False)
    (tmp_path / "nvidia0").mkdir()  # as little to be opened as a device that Slurm gave to another job
    assert not wants_gpu("auto")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    ranks = Ranks(rank=2, local_rank=2, world_size=3, device=torch.device("cpu"))
    with pytest.raises(UserError, match="local rank 2 has no GPU, torch sees 2: start one process per GPU"):
        join(ranks, "cuda", timedelta(minutes=1))


def test_a_device_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name, expected in (("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        assert find_device(name) == torch.device(expected)
    assert find_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"device is 'cuda:2': torch sees 2 GPU\(s\)"):
        find_device("cuda:2")
    with pytest.raises(UserError, match="device is 'gpu': it must be auto or a device of torch"):
        find_device("gpu")


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0", torch.device("cuda")])
def test_no_device_name_falls_back_to_the_cpu(
    device: str | torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=False)
    with pytest.raises(UserError, match="too old"):
        find_device(device)
    assert find_device("cpu") == torch.device("cpu")
