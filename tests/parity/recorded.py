"""Recorded numbers of the released code, and the comparison of computed ones with them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor


class Comparison(NamedTuple):
    """One computed quantity beside the recorded one."""

    name: str
    error: float
    """Largest absolute difference; infinite for another shape, NaN for a number that is not finite."""
    passed: bool


@dataclass(frozen=True)
class Recorded:
    """One file of a set."""

    settings: dict[str, Any]
    numbers: dict[str, Tensor]

    @classmethod
    def read(cls, folder, name):
        """The settings `name`.json and the numbers `name`.safetensors, where there are any."""
        tensors = folder / f"{name}.safetensors"
        settings = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        if "config_file" in settings:
            settings["config"] = json.loads((folder / settings["config_file"]).read_text(encoding="utf-8"))
        return cls(settings, load_file(tensors) if tensors.is_file() else {})

    def near(self, name, got, key, absolute, relative=0.0):
        """Compares with the recorded number `key`, if the file has it."""
        if key in self.numbers:
            yield near(name, got, self.numbers[key], absolute, relative)

    def state(self):
        """The recorded parameters of a model."""
        return {key.removeprefix("param."): value for key, value in self.numbers.items() if key.startswith("param.")}


def double(value):
    """A number, a tensor or a list of either in double precision, outside the graph."""
    if isinstance(value, Sequence) and value and isinstance(value[0], Tensor):
        return torch.stack([double(one) for one in value])
    return torch.as_tensor(value, dtype=torch.float64).detach()


def near(name, got, expected, absolute, relative=0.0):
    """Whether every number differs by at most `absolute + relative * |expected|`."""
    got, expected = double(got), double(expected)
    if got.shape != expected.shape:
        return Comparison(name, math.inf, False)
    difference = (got - expected).abs()
    within = difference <= absolute + relative * expected.abs()
    return Comparison(name, float(difference.max()) if difference.numel() else 0.0, bool(within.all()))


def same(name, got, expected):
    """Whether two values or two tensors are equal."""
    if isinstance(got, Tensor) or isinstance(expected, Tensor):
        return near(name, got, expected, 0.0)
    return Comparison(name, 0.0 if got == expected else math.inf, got == expected)
