"""Whether a process uses a GPU: never the CPU instead of a GPU that torch cannot use."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch

from prolip.distributed import Ranks, join, wants_gpu
from prolip.errors import UserError

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040)."


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, *, gpu: bool, usable: bool) -> None:
    """A machine with or without a GPU, whose driver is new enough for torch or not."""

    def init() -> None:
        raise RuntimeError(f"{TOO_OLD}\nPlease update.")

    monkeypatch.setattr("torch.cuda.is_available", lambda: usable)
    monkeypatch.setattr("torch.cuda.init", init)
    monkeypatch.setattr("prolip.distributed.gpu._DEVICE_FILES", folder)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (folder / "nvidiactl").touch()
    if gpu:
        (folder / "nvidia0").touch()


@pytest.mark.parametrize(("device", "expected"), [("auto", True), ("cuda", True), ("cpu", False)])
def test_a_usable_gpu_is_used(device: str, expected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=True)
    assert wants_gpu(device) is expected


def test_without_a_gpu_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
def test_a_gpu_that_the_user_hides_is_not_missed(visible: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert not wants_gpu("auto")


def test_a_gpu_of_another_job_is_not_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=False, usable=False)
    (tmp_path / "nvidia0").mkdir()  # as little to be opened as a device that Slurm gave to another job
    assert not wants_gpu("auto")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, gpu=True, usable=True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    ranks = Ranks(rank=2, local_rank=2, world_size=3, local_world_size=3, device=torch.device("cpu"))
    with pytest.raises(UserError, match="local rank 2 has no GPU, torch sees 2: start one process per GPU"):
        join(ranks, "cuda", timedelta(minutes=1))
