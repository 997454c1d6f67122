"""Types of `prolip._core.testing`: single kernels of the loader, for tests alone."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["colour_jitter", "gray", "mask_tokens", "resize_box"]

def colour_jitter(
    image: NDArray[np.uint8],
    brightness: float | None,
    contrast: float | None,
    saturation: float | None,
    hue: float | None,
    order: tuple[int, int, int, int],
) -> NDArray[np.uint8]: ...
def gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]: ...
def mask_tokens(
    ids: NDArray[np.int32], draws: NDArray[np.float64], num_masked: int, prob: float, mask_id: int, pad_id: int
) -> NDArray[np.int32]: ...
def resize_box(
    image: NDArray[np.uint8], box: tuple[int, int, int, int], width: int, height: int, filter: str | None = None
) -> NDArray[np.uint8]: ...
