"""Peak FLOPS of known GPUs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Arithmetic = Literal["fp32", "tf32", "bf16", "fp16"]
"""The arithmetic of matrix products; "tf32" is fp32 with inputs rounded to 10 bits of mantissa."""

# Dense TFLOPS with fp32 accumulation, by words of the device name in CUDA; the first row whose words are all in the
# name counts. From NVIDIA's data sheets (A100 of June 2021, H100 and H200 of 2024, L40S, L40, L4, A10, A30, A40, T4,
# V100 of January 2020, HGX B200), with figures "with sparsity" halved, and for GeForce and workstation cards from the
# white papers of the GA102, AD102 and GB202 chips.
_PEAKS: tuple[tuple[str, float, float | None, float], ...] = (
    # Words of the name, 16 bits, tf32, fp32. Cards without tf32 have no bf16 either.
    ("b200", 2250, 1125, 75),
    ("h200 nvl", 835.5, 417.5, 60),
    ("h200", 989.5, 494.5, 67),
    ("h100 nvl", 835.5, 417.5, 60),
    ("h100 pcie", 756, 378, 51),
    ("h100", 989.5, 494.5, 67),
    ("a100", 312, 156, 19.5),
    ("a40", 149.7, 74.8, 37.4),
    ("a30", 165, 82, 10.3),
    ("a10", 125, 62.5, 31.2),
    ("l40s", 362.05, 183, 91.6),
    ("l40", 181.05, 90.5, 90.5),
    ("l4", 121, 60, 30.3),
    ("v100 pcie", 112, None, 14),
    ("v100", 125, None, 15.7),
    ("t4", 65, None, 8.1),
    ("rtx 5090", 209.5, 104.8, 104.8),
    ("rtx 4090", 165.2, 82.6, 82.6),
    ("rtx 3090", 71, 35.6, 35.6),
    ("rtx 6000 ada", 364.2, 182.1, 91.1),
    ("rtx a6000", 154.8, 77.4, 38.7),
)
# Words in the names of other cards, or of a slice of one.
_OTHER_CARDS = frozenset({"laptop", "ti", "super", "d", "mig", "max", "mobile"})


def peak_flops(device_name: str, precision: Arithmetic) -> float | None:
    """A device's peak FLOPs per second; None if the table lacks the device or the precision.

    Args:
        device_name: as `torch.cuda.get_device_name` returns it.
        precision: with `allow_tf32`, fp32 products are "tf32".
    """
    words = set(re.split(r"[^a-z0-9]+", device_name.lower()))
    if words & _OTHER_CARDS:
        return None
    rows = [peaks for names, *peaks in _PEAKS if words.issuperset(names.split())]
    peak = _of(rows[0], precision) if rows else None
    return None if peak is None else peak * 1e12


def known_cards(precision: Arithmetic) -> list[str]:
    """Cards whose peak in this precision is known."""
    return sorted(names.upper() for names, *peaks in _PEAKS if _of(peaks, precision) is not None)


def _of(peaks: Sequence[float | None], precision: Arithmetic) -> float | None:
    half, tf32, full = peaks
    return {"fp16": half, "bf16": half if tf32 else None, "tf32": tf32, "fp32": full}[precision]
