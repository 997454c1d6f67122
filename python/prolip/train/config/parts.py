"""Settings of the parts of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

CLASS_MEMBER = "cls"
"""The member of a sample that holds its class."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with decoupled decay; the defaults are those of the released training code."""

    lr: float = 5e-4
    """Highest learning rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the first and the second moment."""
    eps: float = 1e-6
    """Added to the root of the second moment."""
    weight_decay: float = 0.2
    """Decoupled decay of matrices and tables; vectors, norms, biases and the similarity's scale don't decay."""
    warmup_steps: int = 10_000
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["cosine", "const", "const-cooldown"] = "cosine"
    """What follows the warm-up."""
    cooldown_steps: int = 0
    """Last steps of "const-cooldown" over which the learning rate falls."""
    cooldown_power: float = 1.0
    """Exponent of that fall; 1 is linear."""
    cooldown_end_lr: float = 0.0
    """Learning rate that the fall ends at."""
    log_var_lr_factor: float = 1.0
    """Factor on the learning rate of the log-variance heads."""
    logit_lr_factor: float = 1.0
    """Factor on the learning rate of the similarity's scale and bias."""
    clip_norm: float | None = None
    """Largest global gradient norm; None never clips."""

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "log_var_lr_factor", "logit_lr_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optim.{name} is {getattr(self, name)}: it must be positive")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas is {self.betas}: both must be in [0, 1)")
        if not self.weight_decay >= 0:
            raise ValueError(f"optim.weight_decay is {self.weight_decay}: it must not be negative")
        if self.warmup_steps < 0 or self.cooldown_steps < 0:
            raise ValueError("optim.warmup_steps and optim.cooldown_steps must not be negative")
        if self.schedule == "const-cooldown" and self.cooldown_steps == 0:
            raise ValueError('optim.schedule "const-cooldown" needs optim.cooldown_steps')
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"optim.clip_norm is {self.clip_norm}: it must be positive, or absent")


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """An exponential moving average of the weights; evaluation and export can take it instead of them."""

    decay: float = 0.0
    """Share of the average that an update keeps; 0 keeps no average."""
    every: int = 1
    """Steps between two updates."""
    warmup: bool = True
    """Update t = 1, 2, ... keeps no more than t / (t + 9), so that the random start is soon forgotten."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema.decay is {self.decay}: it must be in [0, 1)")
        if self.every < 1:
            raise ValueError(f"ema.every is {self.every}: it must be at least 1")

    def kept(self, step: int) -> float | None:
        """The share of the average that stays after `step` steps; None where that step makes no update."""
        updates, rest = divmod(step, self.every)
        if rest:
            return None
        return min(self.decay, updates / (updates + 9)) if self.warmup else self.decay


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How several processes share the model, and how its blocks run."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """"ddp": every process holds the whole model, the gradients are averaged. "fsdp": each holds a share of every
    tensor, of its gradient and its moments; a block's tensors are gathered when it runs (FSDP2)."""
    reshard: bool = True
    """With "fsdp": what was gathered for a block's forward pass is given up after it, and gathered again for the
    backward pass; False keeps it until then, for more memory and fewer messages."""
    gather: Literal["fp32", "precision"] = "precision"
    """With "fsdp": what the blocks' weights are gathered in, fp32 or the type of `precision`, which is that of their
    matrix products anyway; norms and biases are rounded with them. Gradients are summed in fp32 either way."""
    recompute_every: int = 0
    """Every n-th block of a tower keeps its input alone and is computed again in the backward pass; 0 keeps all that
    the blocks compute."""
    compile: bool = False
    """Compile the towers' blocks and the loss with torch.compile; torch 2.7 cannot compile the loss, 2.15 can."""

    def __post_init__(self) -> None:
        if self.recompute_every < 0:
            raise ValueError(f"parallel.recompute_every is {self.recompute_every}: it must not be negative")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where a run's figures go besides metrics.jsonl."""

    tensorboard: bool = True
    """TensorBoard's files, in the run's folder `tensorboard`."""
    wandb: bool = False
    """Weights & Biases (`pip install 'prolip[wandb]'`); a run that is continued goes on as the same run there. The
    environment has its say as W&B documents it: WANDB_API_KEY, WANDB_MODE=offline and so on."""
    wandb_project: str = "prolip"
    """W&B's project."""
    wandb_entity: str | None = None
    """W&B's user or team; None for the one that is logged in."""

    examples_every: int = 0
    """Steps between two times that pictures and captions of the batch are shown with their uncertainty, in the run's
    folder `examples`, on TensorBoard's and W&B's page; 0 shows none."""
    num_examples: int = 6
    """Pictures that are shown of the most certain ones, of the least certain ones, and at random."""
    peak_tflops: float | None = None
    """What a device could do at most, in 10^12 operations a second, for the utilisation `mfu`. None takes it from a
    table of GPUs, and leaves `mfu` out for a device that is not in it, such as a CPU."""

    def __post_init__(self) -> None:
        if self.examples_every < 0:
            raise ValueError(f"log.examples_every is {self.examples_every}: it must not be negative")
        if self.num_examples < 1:
            raise ValueError(f"log.num_examples is {self.num_examples}: it must be at least 1")
        if self.peak_tflops is not None and not (math.isfinite(self.peak_tflops) and self.peak_tflops > 0):
            raise ValueError(f"log.peak_tflops is {self.peak_tflops}: it must be finite and positive")

    def check(self) -> None:
        """Checks that what it needs is installed.

        Raises:
            ValueError: W&B isn't.
        """
        if self.wandb and find_spec("wandb") is None:
            raise ValueError("log.wandb is True, but W&B is not installed: pip install 'prolip[wandb]'")


@dataclass(frozen=True, kw_only=True)
class ValidationJob:
    """One set of pictures and what is measured on it. Its figures are called `val/NAME/FIGURE`."""

    name: str = ""
    """What the figures are called by."""
    kind: Literal["zero_shot", "retrieval", "uncertainty"] = "zero_shot"
    """`zero_shot`: classification by prompts. `retrieval`: pictures and their captions, both ways. `uncertainty`: how
    large it is, and whether what is uncertain is found less often."""
    shards: tuple[str, ...] = ()
    """Paths, addresses, brace patterns, globs of the set's shards."""
    every: int = 1000
    """Steps between two evaluations; the last step of a run always has one."""
    batch_size: int = 128
    """Pictures that a process embeds at a time."""
    captions: tuple[str, ...] = ("txt",)
    """For retrieval and uncertainty: `txt`, or dotted paths into the sample's json, each of which gives a caption."""
    label: str = CLASS_MEMBER
    """For zero_shot: `cls`, the sample's member of that name, or a dotted path into its json. It is a class's name or
    its number, from 0."""
    classes: Path | None = None
    """For zero_shot: file of class names, one a line. None takes the names that occur as labels, sorted."""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """For zero_shot: prompts of a class, with `{}` for its name."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What a run evaluates while it trains."""

    jobs: tuple[ValidationJob, ...] = ()
    """Sets of pictures, each with its schedule."""

    def validate(self) -> None:
        """Checks every job.

        Raises:
            ValueError: naming the field, its value and the rule.
        """
        for place, job in enumerate(self.jobs):
            key = f"validation.jobs.{place}"
            if not job.name or "/" in job.name:
                raise ValueError(f"{key}.name is {job.name!r}: it must be there, without a slash")
            if job.name in {other.name for other in self.jobs[:place]}:
                raise ValueError(f"{key}.name is {job.name!r}: another job has that name")
            if not job.shards:
                raise ValueError(f"{key}.shards is empty: name the set's shards")
            for name in ("every", "batch_size"):
                if getattr(job, name) < 1:
                    raise ValueError(f"{key}.{name} is {getattr(job, name)}: it must be at least 1")
            if job.kind == "zero_shot":
                from prolip.eval.prompts import fill_templates  # imports torch, which a help text must not wait for

                fill_templates(job.templates, ["a class"])
            elif not job.captions:
                raise ValueError(f"{key}.captions is empty: {job.kind} needs captions")
