"""open_clip's training, fed by this loader.

`python -m prolip.interop.open_clip FLAGS` is `python -m open_clip_train.main FLAGS` with another reader of
`--train-data`; `open_clip_data` is that reader alone, for a loop of one's own.

B samples of a batch, H/W pixels, L tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prolip.data import OPENAI_MEAN, OPENAI_STD, AugmentConfig, LoaderConfig
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.interop.epochs import Epochs

# A text with what tokenizers clean differently, and one that is cut.
_PROBES = [
    "A Photo&amp;nbsp;of  a CAT’s “tail”, 3 times!",
    # Long ones in which no part is like another: a tokenizer that keeps a part drawn at random will not draw the first
    # of all of them.
    *(" ".join(map(str, range(first, first + 150))) for first in (0, 200, 400)),
]


@dataclass
class OpenClipData:
    """What open_clip's training takes as `data["train"]` or `data["val"]`: its DataInfo."""

    dataloader: OpenClipLoader

    def set_epoch(self, epoch: int) -> None:
        """Makes the data loader's next iteration this epoch's."""
        self.dataloader.epochs.set_epoch(epoch)


class OpenClipLoader:
    """Batches as open_clip has them: (pictures [B, 3, H, W], normalised; token ids int64 [B, L])."""

    def __init__(self, epochs: Epochs):
        if epochs.num_batches is None or epochs.num_samples is None:
            raise ValueError(
                "data.shards are of unknown length, and open_clip's loops ask for it: make an index of them with "
                "`prolip data index`"
            )
        self.epochs = epochs
        self.num_batches = epochs.num_batches
        """Batches of this rank in an epoch."""
        self.num_samples = epochs.num_samples
        """Samples of all ranks in an epoch."""

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch."""
        for batch in self.epochs:
            yield batch.images, batch.token_ids[0]


def open_clip_data(
    config: LoaderConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    mean: tuple[float, float, float] = OPENAI_MEAN,
    std: tuple[float, float, float] = OPENAI_STD,
) -> OpenClipData:
    """Training or evaluation data for `open_clip_train.train`.

    Args:
        config: What is read, and how: one caption slot, no masks; `num_epochs` is not used. With
            `last_batch="keep"` and `augment=None` it is evaluation data.
        rank: This process's place.
        world_size: Processes that share an epoch.
        device: Where the batches go: the training's device, so that they are copied ahead; by default a CPU.
        dtype: Of the pictures.
        mean: The model's `image_mean`.
        std: The model's `image_std`.

    Raises:
        ValueError: A setting cannot work.
        DataError: A shard is damaged.
    """
    if len(config.captions) != 1:
        raise ValueError(f"data.captions has {len(config.captions)} slots: open_clip takes one text a picture")
    if config.mask is not None:
        raise ValueError("data.mask is set: open_clip knows no masked rows")
    epochs = Epochs(config, rank=rank, world_size=world_size, device=device, dtype=dtype, mean=mean, std=std)
    return OpenClipData(OpenClipLoader(epochs))


class Transform(NamedTuple):
    """What one of open_clip's training transforms does."""

    image_size: int
    augment: AugmentConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_transform(transform: Any) -> Transform:
    """What a training transform of `open_clip.create_model_and_transforms` does, in the loader's words.

    Raises:
        ValueError: It has a part that the loader cannot do.
    """
    size, augment, mean, std = 0, AugmentConfig(jitter_prob=0.0, gray_prob=0.0), OPENAI_MEAN, OPENAI_STD
    for part in getattr(transform, "transforms", [transform]):
        match type(part).__name__:
            case "RandomResizedCrop" if part.size[0] == part.size[1] and part.interpolation.value == "bicubic":
                size = part.size[0]
                augment = replace(augment, crop_scale=tuple(part.scale), crop_ratio=tuple(part.ratio))
            case "color_jitter":
                augment = replace(augment, jitter=_jitter(part.transf), jitter_prob=part.p)
            case "gray_scale":
                augment = replace(augment, gray_prob=part.p)
            case "Normalize":
                mean, std = tuple(part.mean), tuple(part.std)
            case "MaybeConvertMode" | "MaybeToTensor" | "ToTensor":
                pass
            case name:
                raise ValueError(f"the training transform has {name}: the loader cannot do that ({part})")
    if size == 0:
        raise ValueError(f"the training transform crops to no size: {transform}")
    return Transform(size, augment, mean, std)


def read_tokenizer(tokenizer: Any) -> TokenizerConfig:
    """The loader's tokenizer that gives the ids of one of `open_clip.get_tokenizer`: CLIP's.

    Raises:
        ValueError: It gives others.
    """
    config = TokenizerConfig(context_length=int(tokenizer.context_length))
    if Tokenizer(config).encode(_PROBES).tolist() != tokenizer(_PROBES).tolist():
        raise ValueError(
            f"the model's tokenizer ({type(tokenizer).__name__}) is not CLIP's: give open_clip_data a configuration "
            "whose tokenizer is the model's tokenizer.json"
        )
    return config


def get_data(
    args: argparse.Namespace, preprocess_fns: tuple[Any, Any], epoch: int = 0, tokenizer: Any = None
) -> dict[str, Any]:
    """`open_clip_train.data.get_data`, with the training shards read by this loader.

    `--workers` are its threads. Without `--dataset-resampled` an epoch is every sample once, whatever
    `--train-num-samples` says. Evaluation data are open_clip's own.

    Raises:
        ValueError: The training data are no shards, or something that was asked for cannot be done.
    """
    from open_clip import get_input_dtype
    from open_clip_train import data as original

    others = argparse.Namespace(**{**vars(args), "train_data": None})
    data: dict[str, Any] = original.get_data(others, preprocess_fns, epoch, tokenizer)
    if not args.train_data:
        return data
    if args.dataset_type not in {"webdataset", "auto"}:
        raise ValueError(f"--dataset-type is {args.dataset_type}: the loader reads shards (webdataset)")
    transform, resampled = read_transform(preprocess_fns[0]), bool(args.dataset_resampled)
    factors = args.train_data_upsampling_factors
    config = LoaderConfig(
        shards=tuple(args.train_data.split("::")),
        weights=tuple(map(float, factors.split("::"))) if factors else (),
        mode="resampled" if resampled else "once",
        num_samples=args.train_num_samples,
        batch_size=args.batch_size,
        image_size=transform.image_size,
        augment=transform.augment,
        tokenizer=read_tokenizer(tokenizer),
        seed=args.seed,
        num_threads=args.workers,
    )
    data["train"] = open_clip_data(
        config,
        rank=args.rank,
        world_size=args.world_size,
        device=torch.device(args.device),
        dtype=get_input_dtype(args.precision) or torch.float32,
        mean=transform.mean,
        std=transform.std,
    )
    data["train"].set_epoch(epoch)
    return data


def main(arguments: Sequence[str]) -> int:
    """Runs open_clip's training with this module's `get_data`; the exit status.

    Raises:
        ModuleNotFoundError: open_clip's training code, or something that it needs, is missing.
    """
    try:
        from open_clip_train import main as training
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install 'open_clip_torch[training]'", name=error.name) from error
    theirs = training.get_data
    training.get_data = get_data
    try:
        training.main(list(arguments))
    finally:
        training.get_data = theirs
    return 0


def _jitter(transform: Any) -> tuple[float, float, float, float]:
    """Strengths of torchvision's ColorJitter, which keeps ranges around 1 (the hue around 0)."""
    middles = (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.0))
    ranges = [(getattr(transform, name) or (middle, middle), middle) for name, middle in middles]
    brightness, contrast, saturation, hue = (float(high) - middle for (_, high), middle in ranges)
    return brightness, contrast, saturation, hue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
