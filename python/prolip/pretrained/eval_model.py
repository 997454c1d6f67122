"""One interface to evaluate ProLIP models and any model of open_clip.

Models of open_clip run in open_clip itself and have no variances. Images come from our loader if it gives exactly the
pixels that the model expects, and otherwise through open_clip's transform.

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
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.models import ProLIP
from prolip.models.config import Precision
from prolip.normalization import OPENAI_MEAN, OPENAI_STD

_PROBES = ["a photo of a cat's “tail”, 3 times!", "seventy words and more " * 20]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Image preprocessing of a model."""

    size: tuple[int, int]
    """Height and width in pixels."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of red, green and blue, in [0, 1]; it is subtracted."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of red, green and blue, in [0, 1]; the difference is divided by it."""
    resize_mode: str = "shortest"
    """`shortest`: resize the shortest side and crop the centre; or another mode of open_clip."""
    interpolation: str = "bicubic"
    """Filter for resizing."""
    transform: Callable[[Any], Tensor] | None = None
    """From a PIL image to f32 [3, H, W]; None if the loader gives the same pixels."""


@dataclass(frozen=True, kw_only=True)
class EvalModel:
    """A model with its preprocessing and tokenizer."""

    name: str
    """Name in results."""
    network: nn.Module
    """On `device`."""
    device: torch.device
    encode_image: Callable[[Tensor], Gaussian]
    """From normalised pixels [B, 3, H, W] to Gaussians [B, D] with means of unit norm."""
    encode_text: Callable[[Tensor], Gaussian]
    """From ids [B, L] to Gaussians [B, D] with means of unit norm."""
    tokenize: Callable[[Sequence[str]], Tensor]
    """From captions to ids, i64 [N, L] on the CPU."""
    preprocess: Preprocess
    has_variances: bool
    """Whether both towers have variances. Without them every Gaussian is a point, and uncertainty is not measured."""
    tokenizer: Tokenizer | None = None
    """The tokenizer of a ProLIP model; else None."""
    keep_ratio: float | None = None
    """Share of patches that training kept of masked images; None if unknown."""
    precision: Precision = "fp32"
    """Precision of the towers in a suite."""

    @property
    def prolip(self) -> ProLIP | None:
        """The network if it is a ProLIP model, else None."""
        return self.network if isinstance(self.network, ProLIP) else None

    def fingerprint(self) -> str:
        """Digest of weights, architecture, tokenizer, preprocessing and precision: 32 hexadecimal digits.

        Models with the same fingerprint have the same results.
        """
        digest = hashlib.sha256()
        shape = self.network.config if isinstance(self.network, ProLIP) else self.network
        pixels = (self.preprocess.size, self.preprocess.mean, self.preprocess.std)
        for part in (shape, pixels, self.preprocess.resize_mode, self.preprocess.interpolation, self.has_variances):
            digest.update(repr(part).encode())
        digest.update(self.precision.encode())
        digest.update(self.tokenize(_PROBES).contiguous().numpy().tobytes())
        digest.update(weights_digest(self.network).encode())
        return digest.hexdigest()[:32]


def weights_digest(network: nn.Module) -> str:
    """Digest of a network's tensors: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def square_image_size(model: ProLIP) -> int:
    """Side of the model's images in pixels.

    Raises:
        UserError: the images are not square.
    """
    size = model.config.vision.image_size
    if not isinstance(size, int):
        raise UserError(f"vision.image_size is {size}: only square images are supported")
    return size


def of_prolip(
    model: ProLIP, tokenizer: Tokenizer, name: str, device: torch.device, *, keep_ratio: float | None = None
) -> EvalModel:
    """Wrap a ProLIP model, and move it to `device`.

    Raises:
        UserError: its images are not square, or the tokenizer has more tokens than the model's table.
    """
    size = square_image_size(model)
    rows = model.config.text.vocab_size
    if tokenizer.vocab_size > rows:
        raise UserError(f"the tokenizer has {tokenizer.vocab_size} tokens: the model has a table of {rows}")
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
    """Wrap a model of open_clip, which has no variances, and move it to `device`.

    Args:
        model: a model from `open_clip.create_model`.
        tokenizer: a tokenizer from `open_clip.get_tokenizer`.
        name: name in results.
        device: where it runs.
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
    """The preprocessing of an open_clip model; without `transform` if the loader gives the same pixels."""
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
