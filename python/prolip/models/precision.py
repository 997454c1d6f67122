"""Precision of the towers: fp32, or bf16 and fp16 by autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from prolip.models.config import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context manager for a forward pass in `precision`."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, DTYPES[precision])
