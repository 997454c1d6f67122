"""The optimizer: parameter groups, learning rate, clipping, and steps that can be skipped on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from prolip.distributed import Ranks
from prolip.models.config import Precision
from prolip.models.freeze import LOG_VAR_HEADS
from prolip.train.config.parts import OptimConfig
from prolip.train.muon import MuonWithAdamW

MAX_LOG_SCALE = math.log(100.0)
_NO_DECAY_NAMES = ("bn", "ln", "bias", "logit_scale")
_LOGIT_NAMES = ("logit_scale", "logit_bias")
_FUSED_NAME = ".attn.in_proj_weight"


def decays(name: str, ndim: int) -> bool:
    """Whether weight decay applies to a parameter: to matrices and tables, but not to vectors, norms, biases or scales.

    Like the released code, it searches for these words anywhere in the name.
    """
    return ndim >= 2 and not any(part in name for part in _NO_DECAY_NAMES)


def lr_factor(config: OptimConfig, name: str) -> float:
    """Return the factor on the learning rate of the parameter `name`."""
    if name in _LOGIT_NAMES:
        return config.logit_lr_factor
    return config.log_var_lr_factor if name.startswith(LOG_VAR_HEADS) else 1.0


def is_hidden(name: str, ndim: int) -> bool:
    """Whether a parameter is a matrix inside a transformer block."""
    return ndim == 2 and ".resblocks." in name


def make_optimizer(
    model: nn.Module, config: OptimConfig, ranks: Ranks, precision: Precision = "fp32"
) -> torch.optim.AdamW:
    """Make the optimizer over the trainable parameters of the model (not wrapped): AdamW, with or without Muon.

    There is a group per decay, factor and kind of step. Each has an `lr_factor`, which `set_learning_rate` uses. Muon
    orthogonalises in bfloat16 on a GPU, and where the towers compute in it.
    """
    has_muon = config.hidden == "muon"
    groups: dict[tuple[bool, float, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrices = 3 if name.endswith(_FUSED_NAME) else 1
            by_muon = matrices if has_muon and is_hidden(name, parameter.ndim) else 0
            kind = (decays(name, parameter.ndim), lr_factor(config, name), by_muon)
            groups.setdefault(kind, []).append(parameter)
    low = ranks.device.type == "cuda" or precision == "bf16"
    dtype = torch.bfloat16 if low else torch.float32
    make = partial(MuonWithAdamW, ranks=ranks, dtype=dtype) if has_muon else torch.optim.AdamW
    return make(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decay else 0.0,
                "lr_factor": factor,
                "muon": by_muon,
            }
            for (decay, factor, by_muon), parameters in groups.items()
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """Return the learning rate of `step` (from 0) in a run of `total_steps`, before any factor.

    Linear warm-up, then a half cosine that would reach 0 one step after the last, a constant, or a constant that falls
    over the last `cooldown_steps` (docs/specification.md, section 8).
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        progress = (step - config.warmup_steps) / (total_steps - config.warmup_steps)
        return 0.5 * config.lr * (1.0 + math.cos(math.pi * progress))
    start = total_steps - config.cooldown_steps
    if config.schedule == "const" or step < start:
        return config.lr
    remaining = 1.0 - (step - start) / config.cooldown_steps
    return float(remaining**config.cooldown_power * (config.lr - config.cooldown_end_lr) + config.cooldown_end_lr)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def step_where(optimizer: torch.optim.Optimizer, taken: Tensor) -> None:
    """Take an optimizer step if `taken`, a scalar; otherwise weights, moments and step counts stay as they are.

    The device decides, so the host does not wait: fused optimizers skip the step if `found_inf` is 1, which is how
    torch.amp.GradScaler uses them.
    """
    optimizer.found_inf = (~taken).float()  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]


def clip_gradients(parameters: Iterable[nn.Parameter], clip_norm: float | None) -> Tensor:
    """Scale gradients down if their global norm exceeds `clip_norm`; returns the norm before that, a scalar."""
    found = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in found if p.grad is not None], foreach=True)
    if isinstance(norm, DTensor):  # some gradients are sharded
        norm = norm.full_tensor()
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(found, clip_norm, norm, foreach=True)
    return norm


@torch.no_grad()
def clamp_logit_scale(model: nn.Module) -> None:
    """Clamp the log of the similarity's scale to [0, ln 100]."""
    scale = model.get_parameter("logit_scale")
    scale.clamp_(0.0, MAX_LOG_SCALE)
