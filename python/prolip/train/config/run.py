"""`TrainConfig`: the settings of a run, and the rules between them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prolip.data import AugmentConfig, DataConfig, FitConfig, LoaderConfig, MaskConfig
from prolip.errors import UserError, check, check_at_least, check_seed, fields_within
from prolip.losses.config import LossConfig
from prolip.models import ARCHITECTURES, LockConfig, ModelConfig
from prolip.models.config import Precision, Resize
from prolip.store.atomic_writes import check_no_tilde
from prolip.store.typed_tables import OPERATIONAL
from prolip.train.config.log import LogConfig
from prolip.train.config.optim import EmaConfig, OptimConfig
from prolip.train.config.parallel import ParallelConfig
from prolip.train.config.validation import ValidationConfig

_DAY = 24 * 60


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a training run."""

    out: Path = field(default=Path("runs/run"), metadata=OPERATIONAL)
    """Folder of the run; its last part is the run's name."""
    samples_seen: int = 0
    """Samples of the whole run, with repetitions; a recipe or a flag must set it. (`data.num_samples` are those of an
    epoch.)"""
    batch_size: int = 512
    """Samples per step over all processes. With `data.native` its token budget decides instead."""
    accumulate: int = field(default=1, metadata=OPERATIONAL)
    """Micro-batches per process and step, to save memory. The gradient is that of the whole batch."""
    precision: Precision = "bf16"
    """Arithmetic of the towers. bf16 and fp16 use autocast, fp16 also loss scaling; the loss is computed in fp32."""
    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=OPERATIONAL)
    """Where to train. "auto" is a GPU if torch can use one."""
    timeout_minutes: float = field(default=30.0, metadata=OPERATIONAL)
    """How long a process waits for another one before the run fails, for example while rank 0 evaluates."""
    cpu_threads: int = field(default=0, metadata=OPERATIONAL)
    """Threads for CPU arithmetic per process; 0 divides the machine's cores among its processes."""
    seed: int = 0
    """Seed of the initial weights and of the loader."""
    log_every: int = field(default=100, metadata=OPERATIONAL)
    """Steps between two rows of metrics."""
    checkpoint_every: int = field(default=1000, metadata=OPERATIONAL)
    """Steps between two checkpoints. The end of the run always saves one."""
    keep_checkpoints: int = field(default=2, metadata=OPERATIONAL)
    """Recent checkpoints to keep, plus the best."""
    keep_best: str | None = field(default=None, metadata=OPERATIONAL)
    """A metric of metrics.jsonl, such as val/NAME/top1 or loss. Whenever it is the best so far, the run saves a
    checkpoint and keeps it as checkpoints/best."""
    best_is: Literal["max", "min"] | None = field(default=None, metadata=OPERATIONAL)
    """Whether the largest or the smallest value of `keep_best` is the best; needed unless that is a loss."""
    resume: str = field(default="auto", metadata=OPERATIONAL)
    """Where to start. `auto`: after the newest usable checkpoint in the run's folder, if any. `never`: at step 0, in a
    folder without checkpoints. Or a step of a checkpoint in the run's folder, or the path of a checkpoint or run."""
    architecture: str = "ViT-B-16"
    """Name of the architecture that `model` is based on. Defaults to the start model's architecture ("start_from");
    naming one overrides it."""
    start_from: str | None = field(default=None, metadata=OPERATIONAL)
    """Model to start from instead of random weights: any source of `prolip.load`, such as a released
    model's name, a folder, a run, hf-hub:OWNER/NAME or open_clip:NAME/TAG. It brings its architecture and tokenizer."""
    start_resize: Resize = "off"
    """How to fit position and token tables of another size; "off" refuses them. "official" also reads a model of
    open_clip into a released architecture, as the released loader does."""
    model: ModelConfig = field(default_factory=lambda: ARCHITECTURES["ViT-B-16"])
    """Sizes of the towers, initial logit scale and bias."""
    lock: LockConfig = field(default_factory=LockConfig)
    """Towers that are not trained."""
    data: DataConfig = field(default_factory=lambda: DataConfig(shards=(), augment=AugmentConfig(), mask=MaskConfig()))
    """Shards, captions, augmentation, masking."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Terms of the loss and their weights."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """AdamW and its learning-rate schedule."""
    log: LogConfig = field(default_factory=LogConfig, metadata=OPERATIONAL)
    """Where to log the run."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Moving average of the weights."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig, metadata=OPERATIONAL)
    """How processes share the model, and how its blocks run."""
    validation: ValidationConfig = field(default_factory=ValidationConfig, metadata=OPERATIONAL)
    """What to evaluate during training."""

    @property
    def name(self) -> str:
        """The last part of `out`."""
        return self.out.absolute().name

    @property
    def closing(self) -> str:
        """The last line of a finished run."""
        return (
            f"wrote {self.out}; next: prolip eval zero_shot --checkpoint {self.out} --data LABELLED, then "
            f"prolip calibrate --checkpoint {self.out} --data LABELLED"
        )

    @property
    def remarks(self) -> list[str]:
        """Notes on settings that are allowed, but usually a mistake."""
        remarks = []
        if self.optim.warmup_steps >= self.total_steps:
            warmup = self.optim.warmup_steps
            remarks.append(
                f"optim.warmup_steps: {warmup:,} of {self.total_steps:,} steps, so optim.lr is never reached"
            )
        if self.data.masking is not None and self.loss.masked_inclusion_weight == 0:
            remarks.append("data.mask: masked views cost time, and loss.masked_inclusion_weight = 0 ignores them")
        return remarks

    @property
    def samples_per_step(self) -> float:
        """Over all processes; their mean with native images."""
        return self.batch_size if self.data.native is None else self.data.native.samples_per_step

    @property
    def total_steps(self) -> int:
        """Full steps in `samples_seen`; with native images, mean steps."""
        return int(self.samples_seen // self.samples_per_step)

    @property
    def kinds_of_step(self) -> list[tuple[float, TrainConfig]]:
        """Probability of each kind of step, and a run of such steps on images of one size that costs the same."""
        native, vision = self.data.native, self.model.vision
        if native is None:
            return [(1.0, self)]
        kinds = []
        for prob, seq_len, samples in native.steps():
            row = vision.patch_size, vision.patch_size * seq_len
            model = dataclasses.replace(
                self.model, vision=dataclasses.replace(vision, image_size=row, image_seq_len=None)
            )
            data = dataclasses.replace(self.data, native=None)
            kinds.append((prob, dataclasses.replace(self, batch_size=samples, model=model, data=data)))
        return kinds

    @property
    def step_sizes(self) -> str:
        """A step's samples, in words."""
        if self.data.native is None:
            return f"{self.batch_size:,} samples"
        kinds = (f"{samples:,} of {seq_len} patches" for _, seq_len, samples in self.data.native.steps())
        return f"{self.samples_per_step:,.0f} samples on average ({', '.join(kinds)})"

    def epochs(self, num_samples: int | None) -> str:
        """How often the run reads each of `num_samples` samples, for its first log line; "" if unknown."""
        return "" if not num_samples else f", {self.samples_seen / num_samples:,.1f} epochs"

    def validate(self) -> None:
        """Check the rules between fields."""
        check(
            self.data.shards or self.data.selection is not None, "data.shards", "name at least one, or data.selection"
        )
        check_no_tilde(self.out, "out")
        self._validate_native()
        self._validate_steps()
        check(
            self.start_resize == "off" or self.start_from is not None,
            "start_resize",
            "needs start_from",
            self.start_resize,
        )
        check_at_least(1, log_every=self.log_every, checkpoint_every=self.checkpoint_every)
        check_at_least(1, keep_checkpoints=self.keep_checkpoints)
        self.validation.validate()
        names, metric = [job.name for job in self.validation.jobs], self.keep_best or ""
        if metric.startswith("val/") and metric.split("/")[1] not in names:
            raise UserError("keep_best", f"must be of a validation job: {', '.join(names) or 'there is none'}", metric)
        check(
            0 < self.timeout_minutes <= _DAY,
            "timeout_minutes",
            f"must be above 0 and at most {_DAY}, a day",
            self.timeout_minutes,
        )
        check_at_least(0, cpu_threads=self.cpu_threads)
        check_seed("seed", self.seed)
        check(self.loss.ppcl_weight != 0, "loss.ppcl_weight", "must be above 0, to train the logit scale and bias", "0")
        has_bias = self.model.init_logit_bias is not None
        check(has_bias, "model.init_logit_bias", "the contrastive loss needs one", "None")
        self._validate_uncertainty()
        if self.data.tokenizer.context_length != self.model.text.context_length:
            rule = f"must equal model.text.context_length, {self.model.text.context_length}"
            raise UserError("data.tokenizer.context_length", rule, self.data.tokenizer.context_length)

    def _validate_native(self) -> None:
        native, seq_len = self.data.native, self.model.vision.image_seq_len
        check(
            native is not None or seq_len is None, "data.native", "must be set if model.vision.image_seq_len is", "None"
        )
        check(
            native is None or seq_len is not None, "model.vision.image_seq_len", "must be set with data.native", "None"
        )
        if native is not None:
            with fields_within("data."):
                native.steps()

    def _validate_steps(self) -> None:
        check_at_least(1, batch_size=self.batch_size)
        if self.total_steps < 1:
            rule = f"must be at least the samples of a step, {self.samples_per_step:.0f}"
            raise UserError("samples_seen", rule, self.samples_seen)
        warmup, cooldown = self.optim.warmup_steps, self.optim.cooldown_steps
        if cooldown > 0 and warmup + cooldown > self.total_steps:
            rule = f"must be at most the run's {self.total_steps} steps less optim.warmup_steps, {warmup}"
            raise UserError("optim.cooldown_steps", rule, cooldown)
        check(
            self.ema.decay <= 0 or self.ema.every <= self.total_steps,
            "ema.every",
            f"must be at most the run's {self.total_steps} steps",
            self.ema.every,
        )

    def _validate_uncertainty(self) -> None:
        loss, masks = self.loss, self.data.masking is not None
        trained = loss.contrast == "ppcl" or loss.variance_scale is not None or loss.vib_weight > 0
        trained = trained or loss.inclusion_weight > 0 or (loss.masked_inclusion_weight > 0 and masks)
        for tower in ("vision", "text"):
            has = getattr(self.model, tower).embed_unc
            check(
                not loss.reads_log_var or has,
                f"model.{tower}.embed_unc",
                "must be True, because the loss reads log variances",
                "False",
            )
            check(not has or trained, f"model.{tower}.embed_unc", "must be False, because no loss trains it", "True")

    def check_vocabulary(self) -> None:
        """Open the tokenizer, and check that the token table has a row for every id."""
        from prolip.data.tokenizer import Tokenizer  # not needed to print the help

        path = self.data.tokenizer.path
        if path is not None and not path.is_file():
            raise UserError("data.tokenizer.path", "no such file", path)
        rows, mask = self.model.text.vocab_size, self.data.masking
        needed = Tokenizer(self.data.tokenizer).vocab_size
        check(needed <= rows, "model.text.vocab_size", f"must be at least the tokenizer's, {needed}", rows)
        if mask is not None and mask.text_mode == "replace" and mask.mask_id >= rows:
            raise UserError("data.mask.mask_id", f"must be below model.text.vocab_size, {rows}", mask.mask_id)

    def loader(self, world_size: int) -> LoaderConfig:
        """Of the training loader on one of `world_size` ranks.

        Raises:
            UserError: the batch does not divide evenly among the ranks.
        """
        vision, native = self.model.vision, self.data.native
        shared = {"batch_size": self.batch_size}
        if native is not None:
            shared = {f"data.native.{name}": getattr(native, name) for name in ("token_budget", "batch_divisor")}
        for name, value in shared.items():
            check(value % world_size == 0, name, f"must be a multiple of the {world_size} processes", value)
        if native is not None:
            native = dataclasses.replace(
                native,
                patch_size=vision.patch_size,
                token_budget=native.token_budget // world_size,
                batch_divisor=native.batch_divisor // world_size,
            )
        per_rank = min(kind.batch_size for _, kind in self.kinds_of_step) // world_size
        check(
            1 <= self.accumulate <= per_rank,
            "accumulate",
            f"must be 1 to {per_rank}, the batch of a process",
            self.accumulate,
        )
        if not isinstance(vision.image_size, int):
            raise UserError("model.vision.image_size", "must be square for training", vision.image_size)
        mask = self.data.masking
        mask = None if mask is None else dataclasses.replace(mask, num_patches=vision.num_patches)
        data = vars(dataclasses.replace(self.data, native=native, mask=mask))
        fit = FitConfig(filter=vision.interpolation)
        return LoaderConfig(
            **data, batch_size=per_rank, image_size=vision.image_size, fit=fit, seed=self.seed, num_epochs=None
        )
