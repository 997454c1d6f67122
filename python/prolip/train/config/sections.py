"""Settings of the sections of a training run: optimizer, average, parallelism, logs, validation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from prolip.errors import UserError, check, check_at_least, fields_within
from prolip.metrics.config import DEFAULT_TEMPLATES
from prolip.store.typed_tables import RESULTS

CLASS_MEMBER = "cls"
"""The member of a sample that holds its class."""


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
        """The decay of the update after `step` steps; None if that step makes no update."""
        updates, rest = divmod(step, self.every)
        if rest:
            return None
        return min(self.decay, updates / (updates + 9)) if self.warmup else self.decay


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How processes share the model, and how its blocks run."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every process has the whole model, and gradients are averaged. `fsdp` (FSDP2): every process has a shard
    of each tensor, its gradient and its moments; the tensors of a block are gathered when it runs."""
    reshard: bool = True
    """With `fsdp`: free the gathered tensors of a block after its forward pass and gather them again for the backward
    pass. False keeps them, for more memory and less communication."""
    gather: Literal["fp32", "precision"] = field(default="precision", metadata=RESULTS)
    """With `fsdp`: dtype in which blocks are gathered, fp32 or that of `precision`. The latter is the dtype of matrix
    products anyway, but norms and biases are rounded too. Gradients are always summed in fp32."""
    recompute_every: int = 0
    """Recompute every n-th block of a tower in the backward pass instead of keeping its activations; 0 for none."""
    compile: bool | None = None
    """Compile the towers' blocks and the loss with torch.compile (the loss from torch 2.15 on). None compiles on GPUs
    only: on a CPU that needs a C++ compiler, and the first steps take long."""

    def __post_init__(self) -> None:
        check_at_least(0, **{"parallel.recompute_every": self.recompute_every})

    def compiles(self, device_type: str) -> bool:
        """Whether to compile on a device of this type, "cpu" or "cuda"."""
        return device_type == "cuda" if self.compile is None else self.compile


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where to log a run, besides metrics.jsonl."""

    tensorboard: bool = False
    """Write TensorBoard files to `tensorboard` in the run's folder (`pip install 'prolip[tensorboard]'`)."""
    wandb: bool = False
    """Log to Weights & Biases (`pip install 'prolip[wandb]'`). A resumed run continues its run there. W&B's environment
    variables apply, such as WANDB_API_KEY and WANDB_MODE=offline."""
    wandb_project: str = "prolip"
    """Project in W&B."""
    wandb_entity: str | None = None
    """User or team in W&B; None for the logged-in user."""

    examples_every: int = 0
    """Steps between two logs of example images and captions with their uncertainty, to `examples` in the run's folder
    and to TensorBoard and W&B; 0 for none."""
    num_examples: int = 6
    """Number of examples of each kind: most certain, least certain, random."""
    peak_tflops: float | None = None
    """Peak of a device in 10^12 FLOPs per second, for model FLOPs utilisation (`mfu`). None looks it up in a table of
    GPUs; for other devices, such as a CPU, `mfu` is not logged."""

    def __post_init__(self) -> None:
        check_at_least(0, **{"log.examples_every": self.examples_every})
        check_at_least(1, **{"log.num_examples": self.num_examples})
        if self.peak_tflops is not None and not (math.isfinite(self.peak_tflops) and self.peak_tflops > 0):
            raise UserError("log.peak_tflops", "must be finite and positive", self.peak_tflops)

    def check(self) -> None:
        """Check that TensorBoard and W&B are installed if they are used."""
        for name, title in (("tensorboard", "TensorBoard"), ("wandb", "W&B")):
            if getattr(self, name) and find_spec(name) is None:
                raise UserError(f"log.{name}", f"{title} is not installed; pip install 'prolip[{name}]'")


@dataclass(frozen=True, kw_only=True)
class ValidationJob:
    """A validation set and what to measure on it. Metrics are named `val/NAME/METRIC`."""

    name: str = "val"
    """Name in the metrics."""
    kind: Literal["zero_shot", "retrieval", "uncertainty"] = "zero_shot"
    """`zero_shot`: classification with prompts. `retrieval`: image to caption and caption to image. `uncertainty`: its
    distribution, and whether uncertain items are retrieved less often."""
    shards: tuple[str, ...] = ()
    """Paths, URLs, brace patterns or globs of the validation set's shards."""
    every: int = 1000
    """Steps between two evaluations. The last step of a run is always evaluated."""
    batch_size: int = 128
    """Images to embed at a time, per process."""
    captions: tuple[str, ...] = ("txt",)
    """For retrieval and uncertainty: one entry per caption, `txt` or a dotted path into the sample's JSON."""
    class_key: str = CLASS_MEMBER
    """For zero_shot: where a sample's class is, its member `cls` or a dotted path into its JSON. A class is a name or
    a number from 0."""
    classnames: Path | None = None
    """For zero_shot: file of class names, one per line; spaces, _ and - are the same. None takes the labels that
    occur, sorted."""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    """For zero_shot: prompts of a class, with `{}` for its name."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What to evaluate during training."""

    jobs: tuple[ValidationJob, ...] = ()
    """The validation sets."""

    def validate(self) -> None:
        """Check every job."""
        for place, job in enumerate(self.jobs):
            key = f"validation.jobs.{place}"
            check(
                job.name and "/" not in job.name, f"{key}.name", "must not be empty or contain a slash", f"{job.name!r}"
            )
            check(
                job.name not in {other.name for other in self.jobs[:place]},
                f"{key}.name",
                "must be unique",
                f"{job.name!r}",
            )
            check(job.shards, f"{key}.shards", "name at least one")
            check_at_least(1, **{f"{key}.every": job.every, f"{key}.batch_size": job.batch_size})
            if job.kind == "zero_shot":
                from prolip.metrics.prompts import fill_templates  # imports torch, which --help must not wait for

                with fields_within(f"{key}."):
                    fill_templates(job.templates, ["a class"])
            elif not job.captions:
                raise UserError(f"{key}.captions", f"{job.kind} needs at least one")
