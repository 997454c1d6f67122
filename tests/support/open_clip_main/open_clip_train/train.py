"""Training and evaluation of a task."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from open_clip import get_input_dtype
from torch import Tensor


@dataclass
class TrainState:
    task: Any
    optimizer: torch.optim.Optimizer
    scaler: Any = None
    scheduler: Callable[[int], None] | None = None
    epoch: int = 0
    global_step: int = 0
    samples_seen: int = 0
    losses: list[float] = field(default_factory=list)
    """The real one logs them."""
    texts: list[Tensor] = field(default_factory=list)
    """What it was trained on, for the tests."""


def restore_train_state_counters(state: TrainState, metadata: Any, data: dict[str, Any], args: Any) -> None:
    del metadata
    loader = data["train"].dataloader
    state.global_step = loader.num_batches // args.accum_freq * state.epoch
    state.samples_seen = loader.num_samples * state.epoch


def train_one_epoch(state: TrainState, data: dict[str, Any], args: argparse.Namespace, tb_writer: Any = None) -> None:
    del tb_writer
    task, optimizer, device = state.task, state.optimizer, torch.device(args.device)
    task.train()
    data["train"].set_epoch(state.epoch)
    loader = data["train"].dataloader
    assert math.log10(loader.num_samples + 1) > 0  # the digits of its log lines
    held: list[dict[str, Tensor]] = []
    for batch in loader:
        batch = task.prepare_batch(batch, device=device, input_dtype=get_input_dtype(args.precision))  # noqa: PLW2901
        held.append(batch)
        if len(held) < args.accum_freq:
            continue
        optimizer.zero_grad()
        for place in range(len(held)):
            losses = task(batch)[0] if len(held) == 1 else _accumulated(task, held, place)
            losses["loss"].backward()
        optimizer.step()
        task.clamp_logit_scale()
        assert state.scheduler is not None
        state.scheduler(state.global_step)
        state.global_step += 1
        state.samples_seen += sum(map(task.batch_size, held)) * args.world_size
        state.losses.append(float(losses["loss"].detach()))
        state.texts += [one["text"] for one in held]
        held = []


def _accumulated(task: Any, held: list[dict[str, Tensor]], place: int) -> dict[str, Tensor]:
    """The loss over all held batches, with gradients to one of them."""
    found = []
    for number, batch in enumerate(held):
        with torch.set_grad_enabled(number == place):
            found.append(task.trainable_module(**batch))
    scalars = {name: found[place][name] for name in ("logit_scale", "logit_bias") if name in found[place]}
    features = {name: torch.cat([one[name] for one in found]) for name in found[place] if name not in scalars}
    losses, _ = task.compute_accum_loss(features, scalars, held)
    return {"loss": sum(losses.values())}


def evaluate(task: Any, data: dict[str, Any], epoch: int, args: Any, tb_writer: Any = None) -> dict[str, float]:
    """Batches are pulled one by one, until there is none."""
    del epoch, tb_writer
    task.eval()
    loader = data["val"].dataloader
    batches, seen = iter(loader), 0
    while (batch := next(batches, None)) is not None:
        batch = task.prepare_batch(batch, torch.device(args.device), get_input_dtype(args.precision))
        with torch.inference_mode():
            found = task(batch)
        assert found[f"{task.primary_key}_features"].shape == found["text_features"].shape
        seen += task.batch_size(batch)
    assert seen == loader.num_samples
    return {"num_samples": seen}
