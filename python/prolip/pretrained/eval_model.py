"""What the suites evaluate: a model of ours or any model of open_clip, behind one face.

A model of open_clip runs through open_clip itself, whatever its architecture; it has no variances. Pictures come from
our loader wherever it gives the pixels that the model expects, and otherwise through open_clip's own transform.
B batch, N items, H/W pixels, L tokens, D dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prolip.data.tokenizer import Tokenizer
from prolip.gaussian import Gaussian
from prolip.models import ProLIP
from prolip.models.config import Precision
from prolip.normalization import OPENAI_MEAN, OPENAI_STD

_PROBES = ["a photo of a cat's “tail”, 3 times!", "seventy words and more " * 20]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a model wants its pictures."""

    size: tuple[int, int]
    """Height and width in pixels."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """What is taken off red, green and blue, as shares of 255."""
    std: tuple[float, float, float] = OPENAI_STD
    """What they are then divided by."""
    resize_mode: str = "shortest"
    """`shortest`: the shortest side is fitted and the centre cut out; others are open_clip's words."""
    interpolation: str = "bicubic"
    """Filter of the resizing."""
    transform: Callable[[Any], Tensor] | None = None
    """From a PIL picture to f32 [3, H, W], where the loader cannot give these pixels; else None."""


@dataclass(frozen=True, kw_only=True)
class EvalModel:
    """A model with all that it takes to evaluate it."""

    name: str
    """What its column is called."""
    network: nn.Module
    """On `device`."""
    device: torch.device
    encode_image: Callable[[Tensor], Gaussian]
    """Normalised pixels [B, 3, H, W] to Gaussians [B, D] with means of unit norm."""
    encode_text: Callable[[Tensor], Gaussian]
    """Ids [B, L] to Gaussians [B, D] with means of unit norm."""
    tokenize: Callable[[Sequence[str]], Tensor]
    """Captions to ids, i64 [N, L] on the CPU."""
    preprocess: Preprocess
    has_variances: bool
    """Whether both towers give variances; without them every Gaussian is a point and no uncertainty is measured."""
    tokenizer: Tokenizer | None = None
    """The tokenizer of a model of ours."""
    keep_ratio: float | None = None
    """Share of the patches that its training kept of masked pictures, where that is known."""
    precision: Precision = "fp32"
    """Arithmetic of the towers in a suite."""

    @property
    def prolip(self) -> ProLIP | None:
        """The network, if it is one of ours."""
        return self.network if isinstance(self.network, ProLIP) else None

    def fingerprint(self) -> str:
        """32 hexadecimal digits of the weights, the architecture, the tokenizer, the preprocessing and the precision.

        Two models with the same digits give the same results, wherever their files lie.
        """
        digest = hashlib.sha256()
        shape = self.network.config if isinstance(self.network, ProLIP) else self.network
        look = (self.preprocess.size, self.preprocess.mean, self.preprocess.std)
        for part in (shape, look, self.preprocess.resize_mode, self.preprocess.interpolation, self.has_variances):
            digest.update(repr(part).encode())
        digest.update(self.precision.encode())
        digest.update(self.tokenize(_PROBES).contiguous().numpy().tobytes())
        digest.update(weights_digest(self.network).encode())
        return digest.hexdigest()[:32]


def weights_digest(network: nn.Module) -> str:
    """Thirty-two hexadecimal digits that networks with the same tensors share."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def square_image_size(model: ProLIP) -> int:
    """Side of the model's images in pixels.

    Raises:
        ValueError: the images are not square.
    """
    size = model.config.vision.image_size
    if not isinstance(size, int):
        raise ValueError(f"vision.image_size is {size}: only square images are supported")
    return size


def of_prolip(
    model: ProLIP, tokenizer: Tokenizer, name: str, device: torch.device, *, keep_ratio: float | None = None
) -> EvalModel:
    """A model of ours on `device`.

    Raises:
        ValueError: its pictures are not square, or the tokenizer has more tokens than the model's table.
    """
    size = square_image_size(model)
    rows = model.config.text.vocab_size
    if tokenizer.vocab_size > rows:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} tokens: the model has a table of {rows}")
    model = model.to(device)

    def tokenize(captions: Sequence[str]) -> Tensor:
        return torch.from_numpy(tokenizer.encode(captions)).long()

    return EvalModel(
        name=name,
        network=model,
        device=device,
        encode_image=model.encode_image,
        encode_text=model.encode_text,
        tokenize=tokenize,
        preprocess=Preprocess(size=(size, size)),
        has_variances=model.config.vision.embed_unc and model.config.text.embed_unc,
        tokenizer=tokenizer,
        keep_ratio=keep_ratio,
    )


def of_open_clip(
    model: nn.Module, tokenizer: Callable[[list[str]], Tensor], name: str, device: torch.device
) -> EvalModel:
    """A model of open_clip on `device`, without variances.

    Args:
        model: with `encode_image`, `encode_text` and `visual.preprocess_cfg`, as `open_clip.create_model` gives it.
        tokenizer: as `open_clip.get_tokenizer` gives it.
        name: what its column is called.
        device: where it is to run.
    """
    network: Any = model.to(device)

    def encode_image(images: Tensor) -> Gaussian:
        return Gaussian.point(network.encode_image(images, normalize=True))

    def encode_text(ids: Tensor) -> Gaussian:
        return Gaussian.point(network.encode_text(ids, normalize=True))

    def tokenize(captions: Sequence[str]) -> Tensor:
        return tokenizer(list(captions)).long()

    return EvalModel(
        name=name,
        network=network,
        device=device,
        encode_image=encode_image,
        encode_text=encode_text,
        tokenize=tokenize,
        preprocess=_open_clip_preprocess(network.visual.preprocess_cfg),
        has_variances=False,
    )


def _open_clip_preprocess(settings: dict[str, Any]) -> Preprocess:
    """The evaluation transform of an open_clip model; through the loader where its pixels are the same."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(**settings)
    height, width = (config.size, config.size) if isinstance(config.size, int) else config.size[-2:]
    same = height == width and config.resize_mode == "shortest" and config.interpolation in {"bicubic", "random"}
    mean, std = tuple(map(float, config.mean)), tuple(map(float, config.std))
    return Preprocess(
        size=(height, width),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        resize_mode=config.resize_mode,
        interpolation=config.interpolation,
        transform=None if same else image_transform_v2(config, is_train=False),
    )
