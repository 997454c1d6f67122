"""The device of a process. A GPU that torch cannot use is an error, not a reason to use the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from prolip.errors import UserError

_DEVICE_FILES = Path("/dev")


def find_device(device: str | torch.device) -> torch.device:
    """Return the device of this name: "auto" (a GPU if there is one), or a torch device, such as "cpu" or "cuda:1".

    Raises:
        UserError: there is no such device, or torch cannot use it; see `wants_gpu`.
    """
    if device == "auto":
        return torch.device("cuda" if wants_gpu("auto") else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(
            f"device is {str(device)!r}: it must be auto or a device of torch, such as cpu or cuda:1"
        ) from error
    if found.type == "cuda" and wants_gpu("cuda") and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device is {str(device)!r}: torch sees {torch.cuda.device_count()} GPU(s), the first is cuda:0"
        )
    return found


def wants_gpu(device: str) -> bool:
    """Whether `device`, "auto" (a GPU if there is one), "cpu" or "cuda", means a GPU on this machine.

    Raises:
        UserError: it is another word; it is "cuda", but torch sees no GPU; or it is "auto", and the machine has a GPU
            that torch cannot use.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise UserError(f'device is {device!r}: it must be "auto", "cpu" or "cuda"')
    if device == "cpu":
        return False
    if torch.cuda.is_available():
        return True
    if device == "cuda":
        raise UserError(f'device is "cuda", but torch sees no GPU: {_why_no_gpu()}')
    present = _gpu_of_machine()
    if present is not None:
        raise UserError(
            f'device is "auto", but torch cannot use the GPU {present} ({_why_no_gpu()}): '
            'update its driver, install a torch that fits it, or use the CPU (device "cpu", or CUDA_VISIBLE_DEVICES=)'
        )
    return False


def _why_no_gpu() -> str:
    """Return torch's reason why it cannot use a GPU."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return "CUDA_VISIBLE_DEVICES hides it"


def _gpu_of_machine() -> Path | None:
    """Return a GPU's device file that this process may open; None if there is none, or the environment hides all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in {"", "-1", "NoDevFiles"}:
        return None
    for path in sorted(_DEVICE_FILES.glob("nvidia[0-9]*")):
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError:  # it belongs to another job of this machine
            continue
        return path
    return None
