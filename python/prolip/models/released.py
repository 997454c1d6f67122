"""The released models: hub repository, architecture, tokenizer and image preprocessing of each.

Sources: the models' cards and config.json files on the hub (by SanghyukChun), and docs/specification.md. The cards
preprocess images with CLIP's processor (bicubic, centre crop, CLIP's mean and standard deviation).
"""

from __future__ import annotations

from dataclasses import dataclass

from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD
from prolip.models.architectures import ARCHITECTURES
from prolip.models.config import ModelConfig

OWNER = "SanghyukChun"
"""On the hub."""


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """`prolip.load(name)` opens it; docs/model-zoo.md has its training and published figures."""

    name: str
    """On the hub, without its owner."""
    architecture: str
    """In `ARCHITECTURES`."""

    @property
    def repository(self) -> str:
        """Of the weights (config.json, model.safetensors), on the hub."""
        return f"{OWNER}/{self.name}"

    @property
    def config(self) -> ModelConfig:
        """The architecture's."""
        return ARCHITECTURES[self.architecture]

    @property
    def tokenizer(self) -> str:
        """Hub repository, or "clip" for CLIP's own."""
        return self.config.text.hf_tokenizer_name or "clip"

    @property
    def context_length(self) -> int:
        """Token ids per caption."""
        return self.config.text.context_length

    @property
    def clean(self) -> str:
        """Cleaning of captions, by open_clip's names (see `TokenizerConfig.clean`)."""
        return self.config.text.tokenizer_clean or "lower"

    @property
    def image_size(self) -> int:
        """Side in pixels."""
        return self.config.vision.height_and_width[0]

    mean = OPENAI_MEAN
    """Of red, green and blue, in [0, 1]; it is subtracted."""
    std = OPENAI_STD
    """Of red, green and blue, in [0, 1]; images are divided by it."""


# Tokenizers are those of the cards and config.json files. LongProLIP's cards show context_length=64, but its table has
# 256 positions (specification, section 2). H/14's config.json names none, so the released code takes CLIP's own, padded
# with 0.
_MODELS = (
    ReleasedModel(name="ProLIP-ViT-B-16-DC-1B-12_8B", architecture="ViT-B-16"),
    ReleasedModel(name="ProLIP-ViT-L-16-FT-DC-1B-1_28B", architecture="ViT-L-16"),
    ReleasedModel(name="ProLIP-ViT-SO400M-14-FT-DC-1B-1_28B", architecture="ViT-SO400M-14"),
    ReleasedModel(name="ProLIP-ViT-H-14-FT-DC-1B-1_28B", architecture="ViT-H-14"),
    ReleasedModel(name="LongProLIP-ViT-B-16-S24M", architecture="ViT-B-16-long"),
    ReleasedModel(name="LongProLIP-ViT-B-16-S128M", architecture="ViT-B-16-long"),
    ReleasedModel(name="LongProLIP-ViT-B-16-SHD128M", architecture="ViT-B-16-long"),
)


def list_models() -> list[ReleasedModel]:
    """In the order of docs/model-zoo.md."""
    return list(_MODELS)


def find_released(name: str) -> ReleasedModel | None:
    """By name, with or without its owner; None if there is none."""
    return next((model for model in _MODELS if name in {model.name, model.repository}), None)
