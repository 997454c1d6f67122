"""Colour jitter and grey by OpenCV, for the hand-made baseline: near PIL's, not equal to it."""

from __future__ import annotations

import random

import cv2
import numpy as np
from numpy.typing import NDArray

from prolip.data import AugmentConfig

Pixels = NDArray[np.uint8]
LEVELS = np.arange(256, dtype=np.float32)


def vary(pixels: Pixels, augment: AugmentConfig, draws: random.Random) -> Pixels:
    """The picture [H, W, 3] after the jitter and the grey that are drawn for it."""
    if draws.random() < augment.jitter_prob:
        for step in draws.sample(range(4), 4):
            strength = augment.jitter[step]
            if step == 3:
                pixels = _turn_hue(pixels, draws.uniform(-strength, strength))
            else:
                pixels = (_brighten, _contrast, _saturate)[step](pixels, draws.uniform(1 - strength, 1 + strength))
    return _gray(pixels) if draws.random() < augment.gray_prob else pixels


def _gray(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)


def _brighten(pixels: Pixels, factor: float) -> Pixels:
    return _through(pixels, LEVELS * np.float32(factor))


def _contrast(pixels: Pixels, factor: float) -> Pixels:
    mean = int(cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return _through(pixels, LEVELS * np.float32(factor) + np.float32((1 - factor) * mean))


def _saturate(pixels: Pixels, factor: float) -> Pixels:
    return np.asarray(cv2.addWeighted(pixels, factor, _gray(pixels), 1 - factor, 0), np.uint8)


def _turn_hue(pixels: Pixels, shift: float) -> Pixels:
    hsv = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL), np.uint8)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def _through(pixels: Pixels, levels: NDArray[np.float32]) -> Pixels:
    return np.asarray(cv2.LUT(pixels, np.clip(levels, 0, 255).astype(np.uint8)), np.uint8)
