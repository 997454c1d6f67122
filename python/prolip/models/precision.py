"""Precision of the towers: fp32, or bf16 and fp16 by autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from prolip.models.config import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context manager for a forward pass in `precision`."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, DTYPES[precision])


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 instructions; a CPU without them is faster in fp32."""
    cpuinfo = Path("/proc/cpuinfo")
    known = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.exists() else set()
    return device.type == "cuda" or not known.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})
