"""Peak FLOPS of known GPUs."""

from __future__ import annotations

import re
from typing import Literal

Arithmetic = Literal["fp32", "tf32", "bf16", "fp16"]
"""The arithmetic of matrix products; "tf32" is fp32 with inputs rounded to 10 bits of mantissa."""

# Dense TFLOPS with fp32 accumulation, by words of the device name in CUDA; the first row whose words are all in the
# name counts. From NVIDIA's data sheets (A100 of June 2021, H100 and H200 of 2024, L40S, L40, L4, A10, A30, A40, T4,
# V100 of January 2020, HGX B200), with figures "with sparsity" halved, and for GeForce and workstation cards from the
# white papers of the GA102, AD102 and GB202 chips.
_PEAKS: tuple[tuple[tuple[str, ...], dict[Arithmetic, float]], ...] = (
    (("b200",), {"bf16": 2250, "fp16": 2250, "tf32": 1125, "fp32": 75}),
    (("h200", "nvl"), {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}),
    (("h200",), {"bf16": 989.5, "fp16": 989.5, "tf32": 494.5, "fp32": 67}),
    (("h100", "nvl"), {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}),
    (("h100", "pcie"), {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51}),
    (("h100",), {"bf16": 989.5, "fp16": 989.5, "tf32": 494.5, "fp32": 67}),
    (("a100",), {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5}),
    (("a40",), {"bf16": 149.7, "fp16": 149.7, "tf32": 74.8, "fp32": 37.4}),
    (("a30",), {"bf16": 165, "fp16": 165, "tf32": 82, "fp32": 10.3}),
    (("a10",), {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2}),
    (("l40s",), {"bf16": 362.05, "fp16": 362.05, "tf32": 183, "fp32": 91.6}),
    (("l40",), {"bf16": 181.05, "fp16": 181.05, "tf32": 90.5, "fp32": 90.5}),
    (("l4",), {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3}),
    (("v100", "pcie"), {"fp16": 112, "fp32": 14}),
    (("v100",), {"fp16": 125, "fp32": 15.7}),
    (("t4",), {"fp16": 65, "fp32": 8.1}),
    (("rtx", "5090"), {"bf16": 209.5, "fp16": 209.5, "tf32": 104.8, "fp32": 104.8}),
    (("rtx", "4090"), {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6}),
    (("rtx", "3090"), {"bf16": 71, "fp16": 71, "tf32": 35.6, "fp32": 35.6}),
    (("rtx", "6000", "ada"), {"bf16": 364.2, "fp16": 364.2, "tf32": 182.1, "fp32": 91.1}),
    (("rtx", "a6000"), {"bf16": 154.8, "fp16": 154.8, "tf32": 77.4, "fp32": 38.7}),
)
# Words that mark a different card, or a slice of one, under nearly the same name.
_OTHER_CARDS = frozenset({"laptop", "ti", "super", "d", "mig", "max", "mobile"})


def peak_flops(device_name: str, precision: Arithmetic) -> float | None:
    """Return a device's peak FLOPs per second; None if the table lacks the device or the precision.

    Args:
        device_name: as returned by `torch.cuda.get_device_name`.
        precision: arithmetic of matrix products. With `allow_tf32`, fp32 products are "tf32".
    """
    words = set(re.split(r"[^a-z0-9]+", device_name.lower()))
    if words & _OTHER_CARDS:
        return None
    for names, peaks in _PEAKS:
        if words.issuperset(names):
            peak = peaks.get(precision)
            return None if peak is None else peak * 1e12
    return None


def known_cards(precision: Arithmetic) -> list[str]:
    """List the cards whose peak in this precision is known."""
    return sorted(" ".join(names).upper() for names, peaks in _PEAKS if precision in peaks)
