"""The settings of a run: one tree of the rooms' own dataclasses, and the rules that join several of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prolip.data import AugmentConfig, LoaderConfig, MaskConfig, StoreConfig
from prolip.losses.config import LossConfig
from prolip.models import ARCHITECTURES, LockConfig, ModelConfig
from prolip.models.config import Precision, Resize
from prolip.train.config.parts import EmaConfig, LogConfig, OptimConfig, ParallelConfig, ValidationConfig

# Keys of a component that follow from others of the tree: not settable, not saved.
DERIVED_KEYS = frozenset(
    {
        "data.batch_size",
        "data.image_size",
        "data.seed",
        "data.num_epochs",
        "data.last_batch",
        "data.keep_members",
        "data.mask.num_patches",
    }
)

# What may differ between a run and its continuation: where things lie and how often it tells, not what is computed.
OPERATIONAL_KEYS = frozenset(
    {
        "run_dir",
        "start_from",
        "accumulate",
        "cpu_threads",
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "keep_best",
        "best_is",
        "resume",
        "data.shards",
        "data.index",
        *(f"data.store.{field.name}" for field in dataclasses.fields(StoreConfig)),
        "data.tokenizer.path",
        "data.num_threads",
        "data.prefetch_batches",
        "loss.exchange",
        *(f"log.{field.name}" for field in dataclasses.fields(LogConfig)),
        *(f"parallel.{field.name}" for field in dataclasses.fields(ParallelConfig) if field.name != "gather"),
    }
)


def _training_data() -> LoaderConfig:
    # Sizes are placeholders: they follow from the batch and the model (`TrainConfig.loader`).
    return LoaderConfig(
        shards=(), batch_size=1, image_size=0, augment=AugmentConfig(), mask=MaskConfig(), num_epochs=None
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run, complete."""

    name: str = "run"
    """Name of the run."""
    run_dir: Path | None = None
    """Folder of the run; runs/NAME when not given."""
    num_samples: int = 0
    """Samples seen in the whole run, repetitions counted."""
    batch_size: int = 512
    """Samples of a step, over all processes together."""
    accumulate: int = 1
    """Parts that a process embeds its samples of a step in, to save memory; the gradient is that of the whole step."""
    precision: Precision = "bf16"
    """Arithmetic of the towers: bf16 and fp16 are autocast, fp16 with a scaled loss; the losses stay in fp32."""
    fp32_matmul: Literal["highest", "high"] = "highest"
    """How fp32 matrices are multiplied on a GPU: exactly, or with TF32's 10 bits of mantissa."""
    cpu_threads: int = 0
    """Threads of a process's arithmetic on the CPU; 0 divides the machine's cores among its processes."""
    seed: int = 0
    """Seed of the initial weights and of every draw of the loader."""
    log_every: int = 100
    """Steps between two rows of metrics."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; the end of the run always saves one."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; the best stays besides."""
    keep_best: str | None = None
    """A figure of metrics.jsonl, such as val/NAME/top1 or loss: whenever it is the best so far the run saves, and that
    checkpoint stays, as checkpoints/best."""
    best_is: Literal["max", "min"] = "max"
    """Whether the largest or the smallest value of it is the best."""
    resume: str = "auto"
    """Where the run begins: "auto", after the newest usable checkpoint of its folder, if there is one; "never", at the
    start, in a folder without checkpoints; after a step of its folder; or the path of a checkpoint or another run."""
    architecture: str = "ViT-B-16"
    """Named architecture that the table `model` starts from; "start_from" is that of the checkpoint, and taken where
    only a checkpoint is named."""
    start_from: str | None = None
    """Weights to start from instead of random ones: whatever `prolip.load` opens, such as a folder, a run,
    hf-hub:OWNER/NAME or open_clip:NAME/TAG."""
    start_resize: Resize = "off"
    """How position and token tables of another size are fitted to the model; "off" refuses them."""
    model: ModelConfig = field(default_factory=lambda: ARCHITECTURES["ViT-B-16"])
    """Sizes of the towers, start values of scale and bias."""
    lock: LockConfig = field(default_factory=LockConfig)
    """Towers that are not trained."""
    data: LoaderConfig = field(default_factory=_training_data)
    """Shards, captions, augmentation, masking."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Terms of the loss."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """AdamW and its schedule."""
    log: LogConfig = field(default_factory=LogConfig)
    """Where the run's figures go."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Averaged weights."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How processes share the model, and how its blocks run."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What is evaluated while it trains."""

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.run_dir if self.run_dir is not None else Path("runs") / self.name

    @property
    def total_steps(self) -> int:
        """Steps of the whole run: the last one that fits whole in `num_samples`."""
        return self.num_samples // self.batch_size

    def validate(self) -> None:
        """Checks the rules that join several fields.

        Raises:
            ValueError: naming the field, its value and the rule.
        """
        if not self.data.shards:
            raise ValueError("data.shards is empty: name the training shards")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: it must be at least 1")
        if self.total_steps < 1:
            raise ValueError(
                f"num_samples is {self.num_samples}: it must be at least one batch of {self.batch_size} samples"
            )
        for name in ("log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        self.validation.validate()
        names = {job.name for job in self.validation.jobs}
        if (
            self.keep_best is not None
            and self.keep_best.startswith("val/")
            and self.keep_best.split("/")[1] not in names
        ):
            raise ValueError(
                f"keep_best is {self.keep_best!r}: validation.jobs are named {', '.join(names) or 'nothing'}"
            )
        if self.cpu_threads < 0:
            raise ValueError(f"cpu_threads is {self.cpu_threads}: it must not be negative")
        if self.loss.ppcl_weight == 0:
            raise ValueError("loss.ppcl_weight is 0: nothing would train the similarity's scale and bias")
        if self.model.init_logit_bias is None and self.loss.reads_bias:
            raise ValueError("model.init_logit_bias is None: the contrastive loss needs a start value")
        self._validate_uncertainty()
        if self.data.tokenizer.context_length != self.model.text.context_length:
            raise ValueError(
                f"data.tokenizer.context_length is {self.data.tokenizer.context_length}: it must equal "
                f"model.text.context_length, {self.model.text.context_length}"
            )

    def _validate_uncertainty(self) -> None:
        loss, masks = self.loss, self.data.masking is not None
        trained = loss.contrast == "ppcl" or loss.inclusion_weight > 0 or loss.vib_weight > 0
        trained = trained or (loss.masked_inclusion_weight > 0 and masks)
        for tower in ("vision", "text"):
            has = getattr(self.model, tower).embed_unc
            if loss.reads_log_var and not has:
                raise ValueError(f"model.{tower}.embed_unc is False: the loss needs log variances in both towers")
            if has and not trained:
                raise ValueError(
                    f'model.{tower}.embed_unc is True: loss.contrast "{loss.contrast}" sees means alone, and no other '
                    "term is on that would train the log variances"
                )

    def check_vocabulary(self) -> None:
        """Checks that every id that the loader can produce has a row in the token table. Reads the tokenizer.

        Raises:
            ValueError: naming the field.
        """
        from prolip.data.tokenizer import Tokenizer  # not needed to print the help

        rows, mask = self.model.text.vocab_size, self.data.masking
        needed = Tokenizer(self.data.tokenizer).vocab_size
        if needed > rows:
            raise ValueError(f"model.text.vocab_size is {rows}: the tokenizer needs at least {needed}")
        if mask is not None and mask.text_mode == "replace" and mask.mask_id >= rows:
            raise ValueError(f"data.mask.mask_id is {mask.mask_id}: it must be below model.text.vocab_size, {rows}")

    def loader(self, world_size: int) -> LoaderConfig:
        """The training loader's configuration on each of `world_size` ranks.

        Raises:
            ValueError: the global batch does not divide among the ranks.
        """
        if self.batch_size % world_size:
            raise ValueError(f"batch_size is {self.batch_size}: it must be a multiple of the {world_size} processes")
        own = self.batch_size // world_size
        if not 1 <= self.accumulate <= own:
            raise ValueError(f"accumulate is {self.accumulate}: it must be 1 to {own}, a process's samples of a step")
        vision = self.model.vision
        if not isinstance(vision.image_size, int):
            raise ValueError(f"model.vision.image_size is {vision.image_size}: training needs square images")
        mask = self.data.masking
        return dataclasses.replace(
            self.data,
            batch_size=own,
            image_size=vision.image_size,
            seed=self.seed,
            mask=None if mask is None else dataclasses.replace(mask, num_patches=vision.num_patches),
        )
