"""Run open_clip's training (3.3) with this loader.

`python -m prolip.interop.open_clip FLAGS` is `python -m open_clip_train.main FLAGS`, except that this loader reads
`--train-data`. `open_clip_data` returns the data alone, for your own loop.

B samples per batch, H/W pixels, L tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prolip.data import AugmentConfig, LoaderConfig
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError, check
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD
from prolip.interop.epochs import Epochs

__all__ = ["OpenClipData", "OpenClipLoader", "get_data", "main", "open_clip_data"]

# For comparing tokenizers: one that they clean differently, and some that are too long.
_PROBES = [
    "A Photo&amp;nbsp;of  a CAT’s “tail”, 3 times!",
    # Without repetition: a tokenizer that keeps a random part is unlikely to keep the first part of all.
    *(" ".join(map(str, range(first, first + 150))) for first in (0, 200, 400)),
]


@dataclass
class OpenClipData:
    """As open_clip's DataInfo: what its training takes as `data["train"]` or `data["val"]`."""

    dataloader: OpenClipLoader

    def set_epoch(self, epoch: int) -> None:
        """The data loader's next iteration is this epoch."""
        self.dataloader.epochs.set_epoch(epoch)


class OpenClipLoader:
    """Batches as open_clip takes them: normalised images [B, 3, H, W] and token ids int64 [B, L]."""

    def __init__(self, epochs: Epochs):
        if epochs.num_batches is None or epochs.num_samples is None:
            raise UserError("shards", "open_clip needs their length; make an index with `prolip data index`")
        self.epochs = epochs
        self.num_batches = epochs.num_batches
        """Per epoch on this rank."""
        self.num_samples = epochs.num_samples
        """Per epoch over all ranks."""

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return self.num_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Over one epoch."""
        for batch in self.epochs:
            assert isinstance(batch.images, Tensor), "open_clip_data refuses native images"
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
        config: with one caption slot and without masking; `num_epochs` is not used. For evaluation data
            `last_batch="keep"` and `augment=None`.
        rank: this process's rank.
        world_size: number of processes that share an epoch.
        device: the training device, so that batches are copied ahead; by default a CPU.
        dtype: of the images.
        mean: the model's `image_mean`.
        std: the model's `image_std`.

    Raises:
        UserError: a setting is invalid.
        DataError: a shard is damaged.
    """
    if len(config.captions) != 1:
        raise UserError("captions", "open_clip takes one caption per image", f"{len(config.captions)} slots")
    if config.mask is not None:
        raise UserError("mask", "open_clip does not support masked rows")
    if config.native is not None:
        raise UserError("native", "open_clip 3.3 takes square images")
    epochs = Epochs(config, rank=rank, world_size=world_size, device=device, dtype=dtype, mean=mean, std=std)
    return OpenClipData(OpenClipLoader(epochs))


class Transform(NamedTuple):
    """Settings of open_clip's training transform."""

    image_size: int
    augment: AugmentConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_transform(transform: Any) -> Transform:
    """From a training transform of `open_clip.create_model_and_transforms`."""
    size, augment, mean, std = 0, AugmentConfig(jitter_prob=0.0, gray_prob=0.0), OPENAI_MEAN, OPENAI_STD
    for step in getattr(transform, "transforms", [transform]):
        match type(step).__name__:
            case "RandomResizedCrop" if step.size[0] == step.size[1] and step.interpolation.value == "bicubic":
                size = step.size[0]
                augment = replace(augment, crop_scale=tuple(step.scale), crop_ratio=tuple(step.ratio))
            case "ColorJitter":
                augment = replace(augment, jitter=_jitter(step), jitter_prob=1.0)
            case "color_jitter":
                augment = replace(augment, jitter=_jitter(step.transf), jitter_prob=step.p)
            case "gray_scale":
                augment = replace(augment, gray_prob=step.p)
            case "Normalize":
                mean, std = (
                    tuple(torch.as_tensor(values, dtype=torch.float64).tolist()) for values in (step.mean, step.std)
                )
            case "MaybeConvertMode" | "MaybeToTensor":
                pass
            case _:
                raise UserError("preprocess_fns", "the loader does not support this training transform", step)
    return Transform(size, augment, mean, std)


def read_tokenizer(tokenizer: Any) -> TokenizerConfig:
    """Of the loader's CLIP tokenizer, if it has the same ids as one of `open_clip.get_tokenizer`."""
    config = TokenizerConfig(context_length=int(tokenizer.context_length))
    if Tokenizer(config).encode(_PROBES).tolist() != tokenizer(_PROBES).tolist():
        raise UserError(
            "tokenizer",
            "must be CLIP's; for another one, call open_clip_data with the model's tokenizer.json",
            type(tokenizer).__name__,
        )
    return config


def get_data(
    args: argparse.Namespace,
    preprocess_fns: tuple[Any, Any],
    epoch: int = 0,
    tokenizer: Any = None,
) -> dict[str, Any]:
    """Replace `open_clip_train.data.get_data`: this loader reads the training shards.

    `--workers` sets its threads. Without `--dataset-resampled` an epoch is every sample once, and `--train-num-samples`
    is ignored. Evaluation data are read by open_clip.

    Raises:
        UserError: the training data are not shards, or a flag is not supported.
    """
    from open_clip import get_input_dtype
    from open_clip_train import data as original

    others = argparse.Namespace(**{**vars(args), "train_data": None})
    data: dict[str, Any] = original.get_data(others, preprocess_fns, epoch, tokenizer)
    if not args.train_data:
        return data
    check(args.dataset_type in {"webdataset", "auto"}, "--dataset-type", "must be webdataset", args.dataset_type)
    transform, resampled = read_transform(preprocess_fns[0]), bool(args.dataset_resampled)
    config = LoaderConfig(
        shards=_split(args.train_data),
        weights=tuple(map(float, _split(args.train_data_upsampling_factors))),
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


def _split(value: str | None) -> tuple[str, ...]:
    return tuple(value.split("::")) if value else ()


def main(arguments: Sequence[str]) -> int:
    """Run open_clip's training with this module's `get_data`; returns the exit status.

    Raises:
        ModuleNotFoundError: open_clip's training code or one of its dependencies is missing.
    """
    try:
        from open_clip_train import main as training
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install 'open_clip_torch[training]'", name=error.name) from error
    original = training.get_data
    training.get_data = get_data
    try:
        training.main(list(arguments))
    finally:
        training.get_data = original
    return 0


def _jitter(transform: Any) -> tuple[float, float, float, float]:
    """Those of torchvision's ColorJitter, which stores ranges around 1 (around 0 for hue)."""
    hue = transform.hue[1] if transform.hue else 0.0
    factors = (transform.brightness, transform.contrast, transform.saturation)
    brightness, contrast, saturation = (float(pair[1]) - 1.0 if pair else 0.0 for pair in factors)
    return brightness, contrast, saturation, float(hue)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
