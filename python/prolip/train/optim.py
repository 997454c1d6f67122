"""The optimizer step, which never waits for the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from prolip.distributed import Ranks
from prolip.losses import LossTerms
from prolip.models.config import Precision
from prolip.models.lock import LOG_VAR_HEADS
from prolip.train.config.optim import EmaConfig, OptimConfig
from prolip.train.muon import MuonWithAdamW

MAX_LOG_SCALE = math.log(100.0)
_NO_DECAY_NAMES = ("bn", "ln", "bias", "logit_scale")
_LOGIT_NAMES = ("logit_scale", "logit_bias")
_FUSED_NAME = ".attn.in_proj_weight"


# ---- Parameter groups and learning rate -----------------------------------------------------------------------------


def decays(name: str, ndim: int) -> bool:
    """By words in the parameter's name, like the released code."""
    return ndim >= 2 and not any(word in name for word in _NO_DECAY_NAMES)


def make_optimizer(
    model: nn.Module, config: OptimConfig, ranks: Ranks, precision: Precision = "fp32"
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of the model (not wrapped), with or without Muon.

    Muon takes the blocks' matrices, and orthogonalises in bfloat16 on a GPU or where the towers compute in it.
    """
    has_muon = config.hidden == "muon"
    groups: dict[tuple[bool, float, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = config.log_var_lr_factor if name.startswith(LOG_VAR_HEADS) else 1.0
            factor = config.logit_lr_factor if name in _LOGIT_NAMES else factor
            by_muon = has_muon and parameter.ndim == 2 and ".resblocks." in name
            matrices = by_muon * (3 if name.endswith(_FUSED_NAME) else 1)
            groups.setdefault((decays(name, parameter.ndim), factor, matrices), []).append(parameter)
    low = ranks.device.type == "cuda" or precision == "bf16"
    dtype = torch.bfloat16 if low else torch.float32
    make = partial(MuonWithAdamW, ranks=ranks, dtype=dtype) if has_muon else torch.optim.AdamW
    return make(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decay else 0.0,
                "lr_factor": factor,
                "muon": matrices,
            }
            for (decay, factor, matrices), parameters in groups.items()
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """Of `step` (from 0), before any factor (docs/specification.md, section 8)."""
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
    """`lr` times each group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


# ---- The step -------------------------------------------------------------------------------------------------------


def step_where(optimizer: torch.optim.Optimizer, taken: Tensor) -> None:
    """Take an optimizer step if `taken`, a scalar; otherwise weights, moments and step counts stay as they are.

    As in torch.amp.GradScaler, fused optimizers skip the step if `found_inf` is 1.
    """
    optimizer.found_inf = (~taken).float()  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]


def clip_gradients(parameters: Iterable[nn.Parameter], clip_norm: float | None) -> Tensor:
    """Scale gradients down if their global norm exceeds `clip_norm`; returns the norm before that, a scalar."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None], foreach=True)
    if isinstance(norm, DTensor):  # some gradients are sharded
        norm = norm.full_tensor()
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(trained, clip_norm, norm, foreach=True)
    return norm


@torch.no_grad()
def clamp_logit_scale(model: nn.Module) -> None:
    """Its log to [0, ln 100]."""
    scale = model.get_parameter("logit_scale")
    scale.clamp_(0.0, MAX_LOG_SCALE)


class Divergence:
    """The first step that diverged, recorded on the device.

    From then on the optimizer must not move (`step_where`). The host reads the record where it waits for the device
    anyway. (torch._assert_async would name neither step nor terms.)
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._record = torch.zeros(2 + len(LossTerms._fields), dtype=torch.float64, device=ranks.device)
        """Step (from 1; 0 if none diverged), loss terms, gradient norm."""

    def note(self, step: int, terms: LossTerms, grad_norm: Tensor, diverged: Tensor) -> Tensor:
        """Record `step` if `diverged`; returns whether this or an earlier step did. Scalars on the device."""
        numbers = torch.stack([*terms, grad_norm]).detach().to(self._record.dtype)
        record = torch.cat([self._record.new_full((1,), step), numbers])
        self._record = torch.where(diverged & (self._record[0] == 0), record, self._record)
        return self._record[0] > 0

    def check(self) -> None:
        """Raise a RuntimeError if a step diverged on any rank: the step, what is not finite, and all terms (means over
        the ranks that diverged there). All ranks call this after the same step."""
        records = self._record[None]
        if self._ranks.world_size > 1:
            gathered = self._record.new_empty(self._ranks.world_size * len(self._record))
            dist.all_gather_into_tensor(gathered, self._record)
            records = gathered.view(self._ranks.world_size, -1)
        diverged = [record for record in records.tolist() if record[0] > 0]
        if not diverged:
            return
        step = min(record[0] for record in diverged)
        of_step = [record[1:] for record in diverged if record[0] == step]
        means = [sum(numbers) / len(of_step) for numbers in zip(*of_step, strict=True)]
        named = dict(zip([*LossTerms._fields, "gradient norm"], means, strict=True))
        wrong = ", ".join(name for name, number in named.items() if not math.isfinite(number))
        listed = ", ".join(f"{name} {number:.6g}" for name, number in named.items())
        raise RuntimeError(f"step {step:.0f} diverged, not finite: {wrong} ({listed})")


class LossScaler:
    """The scale of an fp16 loss, adapted as in `torch.amp.GradScaler`.

    A gradient that is not finite skips the step and halves the scale; 2000 finite steps in a row double it.
    """

    def __init__(self, device: torch.device, scale: float = 2.0**16, *, patience: int = 2000) -> None:
        self.scale = torch.full((), scale, device=device)
        self._patience = patience
        self._good_steps = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """In place."""
        factor = 1.0 / self.scale
        for parameter in parameters:
            if parameter.grad is not None:
                _local(parameter.grad).mul_(factor)

    def update(self, finite: Tensor) -> Tensor:
        """Adapt the scale; returns whether a smaller one may help. Scalars on the device; `finite` says whether the
        gradient norm is, which is the same on all ranks."""
        overflowed = ~finite & (self.scale > 1)
        good_steps = torch.where(finite, self._good_steps + 1, 0)
        doubled = good_steps == self._patience
        self.scale = torch.where(overflowed, self.scale / 2, torch.where(doubled, self.scale * 2, self.scale))
        self._good_steps = torch.where(doubled, 0, good_steps)
        return overflowed

    def state_dict(self) -> dict[str, float]:
        """The scale and the number of finite steps in a row."""
        return {"scale": self.scale.item(), "good_steps": float(self._good_steps.item())}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """From `state_dict`."""
        self.scale.fill_(state["scale"])
        self._good_steps.fill_(int(state["good_steps"]))


class Ema:
    """An exponential moving average of parameters, with the device, type and sharding of each."""

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self.config = config
        self._parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self._average = {name: parameter.clone() for name, parameter in self._parameters.items()}

    def update(self, step: int) -> None:
        """With the weights after `step` steps, if an update is due."""
        kept = self.config.kept(step)
        if kept is not None:
            average, current = (
                [_local(tensor) for tensor in tensors.values()] for tensors in (self._average, self._parameters)
            )
            get_ema_multi_avg_fn(kept)(average, current, step)  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Tensor]:
        """By parameter name, not copied."""
        return dict(self._average)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
