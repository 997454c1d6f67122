"""Colour jitter and grey with OpenCV, for the hand-made baseline. Pixels are close to PIL's, but not equal."""

from __future__ import annotations

import random

import cv2
import numpy as np
from numpy.typing import NDArray

from prolip.data import AugmentConfig

Pixels = NDArray[np.uint8]
LEVELS = np.arange(256, dtype=np.float32)


def augment(pixels: Pixels, config: AugmentConfig, draws: random.Random) -> Pixels:
    """Apply random colour jitter and grey to an image [H, W, 3]."""
    if draws.random() < config.jitter_prob:
        for step in draws.sample(range(4), 4):
            strength = config.jitter[step]
            if step == 3:
                pixels = _shift_hue(pixels, draws.uniform(-strength, strength))
            else:
                pixels = (_brighten, _contrast, _saturate)[step](pixels, draws.uniform(1 - strength, 1 + strength))
    return _gray(pixels) if draws.random() < config.gray_prob else pixels


def _gray(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def _brighten(pixels: Pixels, factor: float) -> Pixels:
    return _apply_levels(pixels, LEVELS * np.float32(factor))


def _contrast(pixels: Pixels, factor: float) -> Pixels:
    mean = int(cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return _apply_levels(pixels, LEVELS * np.float32(factor) + np.float32((1 - factor) * mean))


def _saturate(pixels: Pixels, factor: float) -> Pixels:
    return np.asarray(cv2.addWeighted(pixels, factor, _gray(pixels), 1 - factor, 0), np.uint8)


def _shift_hue(pixels: Pixels, shift: float) -> Pixels:
    hsv = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL), np.uint8)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def _apply_levels(pixels: Pixels, levels: NDArray[np.float32]) -> Pixels:
    return np.asarray(cv2.LUT(pixels, np.clip(levels, 0, 255).astype(np.uint8)), np.uint8)
