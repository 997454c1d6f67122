"""The configuration of a run: one tree of the components' own dataclasses.

It is read from recipes and flags (`load_config`) and saved with the run (`to_toml`) so that it reads back equal.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import torch

from prolip.data import AugmentConfig, CaptionConfig, LoaderConfig, MaskConfig, StoreConfig
from prolip.data.tokenizer import Tokenizer, TokenizerConfig
from prolip.losses import LossConfig
from prolip.models import ARCHITECTURES, LockConfig, ModelConfig
from prolip.models.precision import DTYPES, Precision
from prolip.models.weights import Resize
from prolip.pretrained.sources import read_config
from prolip.train import flags
from prolip.train.ema import EmaConfig
from prolip.train.logging import LogConfig
from prolip.train.optim import OptimConfig
from prolip.train.parallel import ParallelConfig
from prolip.train.validation import Reading, ValidationConfig

# Keys of a component that follow from others of the tree: not settable, not saved.
DERIVED_KEYS = frozenset({"data.mask.num_patches"})

_RECIPES = resources.files("prolip") / "recipes"
_OF_START = "start_from"
"""The name of the architecture that a start brings."""

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


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training data. What the loader needs besides follows from the model and the run."""

    shards: tuple[str, ...] = ()
    """Brace patterns, globs, paths or addresses of WebDataset shards."""
    weights: tuple[float, ...] = LoaderConfig.weights
    """With `mode = "resampled"`, how often a shard of each pattern is drawn, relative to a shard of the others."""
    index: str | None = LoaderConfig.index
    """File or address of an index of the shards, made by `prolip data index`."""
    mode: Literal["once", "resampled"] = LoaderConfig.mode
    """Every sample once an epoch, or shards drawn with replacement."""
    num_samples: int | None = LoaderConfig.num_samples
    """Samples of an epoch, where the shards do not say: they are resampled, or neither local nor in an index."""
    captions: tuple[CaptionConfig, ...] = (CaptionConfig(),)
    """One entry a caption slot: every picture comes with one caption of each."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random crop, colour jitter, grey."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """Which rows are masked, and how; a masked_fraction of 0 masks nothing."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Captions to ids."""
    shuffle_window: int = LoaderConfig.shuffle_window
    """Samples that are shuffled together; 0 keeps the order of the files."""
    num_threads: int = LoaderConfig.num_threads
    """Loader threads of a process; 0 divides the machine's cores among its processes."""
    prefetch_batches: int = LoaderConfig.prefetch_batches
    """Batches prepared ahead."""
    max_bad_fraction: float = LoaderConfig.max_bad_fraction
    """Share of unreadable samples past which the run fails."""
    max_pixels: int = LoaderConfig.max_pixels
    """Pixels of a picture, at most."""
    max_member_bytes: int = LoaderConfig.max_member_bytes
    """Bytes of a sample's members together, at most."""
    max_caption_bytes: int = LoaderConfig.max_caption_bytes
    """Bytes of a caption, at most."""
    on_missing_shard: Literal["raise", "skip"] = LoaderConfig.on_missing_shard
    """What happens when a shard cannot be opened."""
    decode: Literal["exact", "fast"] = LoaderConfig.decode
    """Pillow's pixels bit for bit, or inexact ones in less time."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards that are no plain local files are read."""


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
    data: DataConfig = field(default_factory=DataConfig)
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
    def dtype(self) -> torch.dtype:
        """What pictures come in: the type that matrices are multiplied in."""
        return DTYPES[self.precision]

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
        loss, masks = self.loss, self.data.mask.masked_fraction > 0
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
        rows, mask = self.model.text.vocab_size, self.data.mask
        needed = Tokenizer(self.data.tokenizer).vocab_size
        if needed > rows:
            raise ValueError(f"model.text.vocab_size is {rows}: the tokenizer needs at least {needed}")
        if mask.masked_fraction > 0 and mask.text_mode == "replace" and mask.mask_id >= rows:
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
        masked = dataclasses.replace(self.data.mask, num_patches=vision.num_patches)
        data: dict[str, Any] = {field.name: getattr(self.data, field.name) for field in dataclasses.fields(self.data)}
        data["mask"] = masked if masked.masked_fraction > 0 else None
        return LoaderConfig(
            **data,
            batch_size=own,
            image_size=vision.image_size,
            seed=self.seed,
            num_epochs=None,
            last_batch="drop",
        )

    def reading(self) -> Reading:
        """What evaluation within the run takes over of how training reads."""
        size = self.model.vision.image_size
        assert isinstance(size, int)  # as `loader` sees to
        return Reading(
            image_size=size, tokenizer=self.data.tokenizer, num_threads=self.data.num_threads, store=self.data.store
        )


def load_config(arguments: Sequence[str], prog: str = "prolip train") -> TrainConfig:
    """The tree that the command line `RECIPE.toml ... --flag value ...` describes.

    Args:
        arguments: recipes first (paths, or names of the package's recipes), then flags; later ones win.
        prog: the command, for the help text.

    Raises:
        ValueError: an unknown recipe or key, a value that doesn't parse, a broken rule; the message has the key.
    """
    names, words = flags.split(arguments)
    layers = [layer for name in names for layer in read_recipe(name)]
    return _build(layers, words, f"{prog} [RECIPE.toml ...]")


def from_toml(text: str) -> TrainConfig:
    """The tree that `to_toml` wrote."""
    return _build([("saved configuration", tomllib.loads(text))], [], "prolip train", is_saved=True)


def _build(tables: Sequence[flags.Named], words: list[str], prog: str, *, is_saved: bool = False) -> TrainConfig:
    chosen = [table["architecture"] for _, table in tables if "architecture" in table]
    starts = [table["start_from"] for _, table in tables if "start_from" in table]
    start = flags.last_value(words, "start_from") or (starts or ["None"])[-1]
    default = TrainConfig.architecture if start == "None" else _OF_START
    architecture = flags.last_value(words, "architecture") or (chosen or [default])[-1]
    if architecture == _OF_START and start == "None":
        raise ValueError(f"architecture is {_OF_START!r}, and start_from names no checkpoint")
    if architecture not in {*ARCHITECTURES, _OF_START}:
        raise ValueError(f"architecture is {architecture!r}: it must be one of {', '.join(ARCHITECTURES)}")
    if architecture != _OF_START:
        base = TrainConfig(model=ARCHITECTURES[architecture])
    elif is_saved:  # the table `model` is complete
        base = TrainConfig(architecture=architecture)
    else:
        base = TrainConfig(architecture=architecture, model=read_config(start))
    config = flags.parse(base, tables, words, derived=DERIVED_KEYS, prog=prog)
    config.validate()
    return config


def known_recipes() -> list[str]:
    """Names of the package's recipes."""
    return sorted(Path(entry.name).stem for entry in _RECIPES.iterdir())


def read_recipe(name: str) -> list[flags.Named]:
    """The table in a TOML file, or in the package's recipe of that name, above those of the recipes that it extends.

    A recipe states what differs from the one that its key `extends` names, a recipe of the package or a path beside it.

    Raises:
        ValueError: there is no such file, it isn't TOML, or a recipe extends itself, be it through others.
    """
    layers: list[flags.Named] = []
    chain: list[str] = []
    wanted, folder = name, Path()
    while True:
        path = folder / wanted
        is_file = wanted.endswith(".toml") or path.is_file()
        label = str(path) if is_file else wanted
        chain.append(str(path.resolve()) if is_file else wanted)
        if chain[-1] in chain[:-1]:
            raise ValueError(f"{label} extends itself: {' extends '.join([*(one for one, _ in layers[::-1]), label])}")
        table = _read_table(path if is_file else _RECIPES / f"{wanted}.toml", label, layers)
        extended = table.pop("extends", None)
        layers.insert(0, (label, table))
        if extended is None:
            return layers
        if not isinstance(extended, str):
            raise ValueError(f"extends in {label} is {extended!r}: it must be the name of a recipe")
        wanted, folder = extended, path.parent if is_file else Path()


def _read_table(source: Path | Traversable, label: str, above: list[flags.Named]) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        by = f", which {above[0][0]} extends" if above else ""
        known = ", ".join(known_recipes())
        raise ValueError(f"no recipe {label!r}{by}: give the path of a TOML file or one of {known}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{label}: {error}") from error


def to_toml(config: TrainConfig) -> str:
    """The tree as TOML that `load_config` reads back as an equal tree."""
    return flags.to_toml(config, derived=DERIVED_KEYS)


def differing_keys(config: TrainConfig, saved: str) -> list[str]:
    """Dotted keys in which a run computes something else than the one whose TOML is given."""
    ours, theirs = flags.flat(tomllib.loads(to_toml(config))), flags.flat(tomllib.loads(saved))
    keys = sorted((ours.keys() | theirs.keys()) - OPERATIONAL_KEYS)
    return [key for key in keys if ours.get(key) != theirs.get(key) and not key.startswith("validation.")]
