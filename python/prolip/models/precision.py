"""Precision of the towers: fp32, or bf16 and fp16 by autocast."""

from __future__ import annotations

import timeit
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from prolip.models.config import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """For a forward pass in `precision`."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, DTYPES[precision])


def bf16_is_faster(device: torch.device) -> bool:
    """Faster than fp32. A CPU is timed: of two with `avx512_bf16`, one gains and the other loses."""
    if device.type == "cuda":
        return True
    seconds = {}
    for precision in ("fp32", "bf16"):
        matrix = torch.ones(1024, 512, dtype=DTYPES[precision])
        multiply = partial(torch.mm, matrix, matrix.T)
        seconds[precision] = min(timeit.repeat(multiply, number=1, repeat=6))
    return seconds["bf16"] < seconds["fp32"]
