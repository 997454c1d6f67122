"""Settings of the optimizer and of averaged weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from prolip.errors import UserError, check, check_at_least


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with decoupled weight decay. The defaults are those of the released training code."""

    lr: float = 5e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of the first and second moment."""
    eps: float = 1e-6
    """Added to the square root of the second moment."""
    hidden: Literal["adamw", "muon"] = "adamw"
    """Optimizer of the matrices inside transformer blocks; "muon" learns more per step. AdamW trains all the rest."""
    weight_decay: float = 0.2
    """Decoupled weight decay of matrices and embedding tables. Vectors, norms, biases and the logit scale don't
    decay."""
    warmup_steps: int = 10_000
    """Steps of linear warm-up from 0."""
    schedule: Literal["cosine", "const", "const-cooldown"] = "cosine"
    """Schedule after the warm-up."""
    cooldown_steps: int = 0
    """Steps of the cool-down at the end of "const-cooldown"."""
    cooldown_power: float = 1.0
    """Exponent of the cool-down; 1 is linear."""
    cooldown_end_lr: float = 0.0
    """Learning rate at the end of the cool-down."""
    log_var_lr_factor: float = 1.0
    """Factor on the learning rate of the log-variance heads."""
    logit_lr_factor: float = 1.0
    """Factor on the learning rate of the logit scale and bias."""
    clip_norm: float | None = None
    """Maximum global gradient norm; None for no clipping."""

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "log_var_lr_factor", "logit_lr_factor"):
            check(
                0 < getattr(self, name) < math.inf, f"optim.{name}", "must be finite and positive", getattr(self, name)
            )
        for name in ("weight_decay", "warmup_steps", "cooldown_steps", "cooldown_power", "cooldown_end_lr"):
            check(
                0 <= getattr(self, name) < math.inf,
                f"optim.{name}",
                "must be finite and at least 0",
                getattr(self, name),
            )
        check(all(0 <= beta < 1 for beta in self.betas), "optim.betas", "both must be in [0, 1)", self.betas)
        if (self.schedule == "const-cooldown") != (self.cooldown_steps > 0):
            rule = f'must be positive with "const-cooldown", and 0 with optim.schedule "{self.schedule}"'
            raise UserError("optim.cooldown_steps", rule, self.cooldown_steps)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UserError("optim.clip_norm", "must be positive, or absent", self.clip_norm)


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """An exponential moving average (EMA) of the weights, for evaluation and export."""

    decay: float = 0.0
    """Share of the average that an update keeps; 0 for no average."""
    every: int = 1
    """Steps between two updates."""
    warmup: bool = True
    """Limit the decay of update t = 1, 2, ... to t / (t + 9), so that the random start is soon forgotten."""

    def __post_init__(self) -> None:
        check(0 <= self.decay < 1, "ema.decay", "must be in [0, 1)", self.decay)
        check_at_least(1, **{"ema.every": self.every})

    def kept(self, step: int) -> float | None:
        """Of the update after `step` steps; None if that step makes none."""
        updates, rest = divmod(step, self.every)
        if rest:
            return None
        return min(self.decay, updates / (updates + 9)) if self.warmup else self.decay
