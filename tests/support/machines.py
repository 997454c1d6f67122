"""Simulated machines: without a GPU, with one, with one that torch cannot use."""

from __future__ import annotations

from pathlib import Path

import pytest

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
