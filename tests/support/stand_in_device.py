"""A device that is none: it computes on the CPU, and counts how often the host waits for it.

`python -m tests.support.stand_in_device CHANGES...` prints these counts of a training step, for each JSON of changes to
its configuration. Torch takes only one such device in a process, so it has a process of its own. Autocast casts nothing
there.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from typing import Any, ClassVar, cast
from unittest import mock

import torch
from tests.support import small_step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from prolip.train.config.optim import EmaConfig
from prolip.train.logging import Meter
from prolip.train.loop import take_step

NAME = "stand_in"
aten = torch.ops.aten
READ = {
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.masked_select.default,
    aten._unique2.default,
}
"""Operators whose result, or the size of it, has to be known on the host."""


class _Module(_DummyBackendModule):
    @staticmethod
    def get_amp_supported_dtype():
        return [torch.float16, torch.bfloat16]


class OnDevice(Tensor):
    """A tensor that says it is on the device."""

    raw: Tensor
    """Its numbers."""

    @staticmethod
    def __new__(cls, raw):
        there = torch.device(NAME, 0)
        tensor = Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=there,
        )
        tensor.raw = raw
        return cast(OnDevice, tensor)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return Device.current.run(func, args, kwargs or {})  # in the thread of the backward pass, which has no mode


class Device(TorchDispatchMode):
    """Runs what is on the device, and counts."""

    current: ClassVar[Device]

    def __init__(self):
        super().__init__()
        self.calls = Counter[str]()
        self.waits = Counter[str]()
        Device.current = self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def run(self, func, args, kwargs):
        """Run an operator on the device."""
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OnDevice)]
        target = kwargs.get("device")
        stays = bool(inputs) if target is None else torch.device(target).type == NAME
        if func is aten.copy_.default:
            stays = isinstance(args[0], OnDevice)
        self.calls[str(func)] += 1
        by_mask = func is aten.index.Tensor and any(index.dtype == torch.bool for index in inputs[1:])
        if inputs and (func in READ or by_mask or not stays):
            self.waits[str(func)] += 1
        plain = tree_map_only(OnDevice, lambda tensor: tensor.raw, (args, kwargs))
        positional, named = tree_map_only(torch.device, lambda _: torch.device("cpu"), plain)
        found = func(*positional, **named)
        if not stays or func is aten._local_scalar_dense.default:
            return found
        known = {id(tensor.raw): tensor for tensor in inputs}  # what changes in place stays what it is
        return tree_map_only(Tensor, lambda raw: known[id(raw)] if id(raw) in known else OnDevice(raw), found)


def register():
    """Tell torch of the device."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    library = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)
    _KEPT.append(library)
    return torch.device(NAME, 0)


_KEPT = []


def step_waits(device, changes):
    """Calls and waits of the second step of a run."""
    with Device() as on, mock.patch.object(small_step, "ALONE", replace(small_step.ALONE, device=device)):
        model = small_step.model_of().to(device)
        run = small_step.run_of(model, ema=EmaConfig(decay=0.9), **changes)
        meter = Meter(run.ranks, cast(Any, None), cast(Any, None), step=0, samples=0, elapsed_s=0.0, scaler=run.scaler)
        on_host = small_step.step_of(8, 3)
        batch = on_host._replace(**{name: part.to(device) for name, part in on_host._asdict().items()})

        def step():
            terms, _, norm = take_step(run, cast(Any, batch))
            meter.add(terms)
            assert norm.device == device

        step()  # whatever is made once
        on.calls.clear()
        on.waits.clear()
        step()
        return {"calls": on.calls.total(), "adamw": on.calls["aten._fused_adamw_.default"], "waits": dict(on.waits)}


READS = {
    "bool": lambda tensor: bool(tensor.sum() > 0),
    "item": lambda tensor: tensor[0].item(),
    "cpu": lambda tensor: tensor.cpu(),
    "to": lambda tensor: tensor.to("cpu", torch.float64),
    "copy": lambda tensor: torch.zeros(3).copy_(tensor),
    "nonzero": lambda tensor: tensor.nonzero(),
    "mask": lambda tensor: tensor[tensor > 0],
}


def seen(device):
    """How many waits are counted of each way to read from the device."""
    counts = {}
    for name, read in READS.items():
        with Device() as on:
            numbers = torch.ones(3).to(device)
            read(numbers)
            counts[name] = on.waits.total()
    return counts


if __name__ == "__main__":
    stand_in = register()
    steps = [step_waits(stand_in, json.loads(words)) for words in sys.argv[1:]]
    sys.stdout.write(json.dumps({"steps": steps, "seen": seen(stand_in)}))
    sys.stdout.flush()
    os._exit(0)  # torch's thread for the device would not end
