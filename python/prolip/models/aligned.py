"""Two frozen encoders with a linear head each: a CLIP whose variances are distances to what it was trained on.

B batch, N trained items, F features of an encoder, D embedding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from prolip.gaussian import Gaussian
from prolip.models.weights import WeightsError, read_json
from prolip.store.atomic_writes import write_atomic
from prolip.store.file_contents import crc32

ALIGNED_FILE = "aligned.json"
ALIGNED_WEIGHTS = "aligned.safetensors"
NEAREST = 10
"""Trained items whose distance to an item is its variance."""


class AlignedHead(nn.Module):
    """A linear map, and one variance, the distance to what was trained on.

    The total variance is `factor * (1 - mean cosine to the ten nearest embeddings of the bank)`.
    """

    bank: Tensor
    """[N, D], of trained items, of unit norm."""
    factor: Tensor

    def __init__(self, features: int, dim: int, trained: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, dim)
        self.register_buffer("bank", torch.zeros(trained, dim))
        self.register_buffer("factor", torch.ones(()))

    def means(self, features: Tensor) -> Tensor:
        """[B, D] of unit norm of features [B, F]."""
        return F.normalize(self.linear(features), dim=-1)

    def forward(self, features: Tensor) -> Gaussian:
        """[B, D] of features [B, F]; points without a bank."""
        mean = self.means(features)
        if not len(self.bank):
            return Gaussian.point(mean)
        nearest = (mean @ self.bank.T).topk(min(NEAREST, len(self.bank))).values
        total = self.factor * (1.0 - nearest.mean(-1)).clamp(min=1e-6)
        return Gaussian(mean, (total.log() - math.log(mean.shape[-1]))[..., None].expand_as(mean))


class Heads(nn.Module):
    """With the similarity's bias and *log* of its scale."""

    def __init__(self, image: AlignedHead, text: AlignedHead) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.logit_scale = nn.Parameter(torch.tensor(10.0).log())
        self.logit_bias = nn.Parameter(torch.zeros(()))


class AlignedNetwork(nn.Module):
    """Two frozen encoders and their heads."""

    def __init__(self, image: nn.Module, text: nn.Module, heads: Heads) -> None:
        super().__init__()
        self.image = image.requires_grad_(False)
        self.text = text.requires_grad_(False)
        self.heads = heads.requires_grad_(False)

    @property
    def logit_scale(self) -> nn.Parameter:
        """The log of the similarity's."""
        return self.heads.logit_scale

    @property
    def logit_bias(self) -> nn.Parameter:
        """The similarity's."""
        return self.heads.logit_bias

    def encode_image(self, pixels: Tensor) -> Gaussian:
        """[B, D] of pixels [B, 3, H, W]."""
        found: Gaussian = _encode(self.image, self.heads.image, pixels)
        return found

    def encode_text(self, ids: Tensor) -> Gaussian:
        """[B, D] of ids [B, L]."""
        found: Gaussian = _encode(self.text, self.heads.text, ids)
        return found


def _encode(tower: nn.Module, head: AlignedHead, inputs: Tensor) -> Gaussian:
    features = tower(inputs).float()
    with torch.autocast(features.device.type, enabled=False):
        found: Gaussian = head(features)
    return found


class Encoders(NamedTuple):
    """By source, and the digests of their weights and preprocessing."""

    image: str
    text: str
    image_digest: str
    text_digest: str


def save_aligned(heads: Heads, encoders: Encoders, folder: Path, notes: Mapping[str, Any]) -> None:
    """As aligned.safetensors (float32) and aligned.json, with `notes` as an entry."""
    write_atomic(folder / ALIGNED_WEIGHTS, save({k: v.detach().contiguous() for k, v in heads.state_dict().items()}))
    content = {"encoders": encoders._asdict(), "checksum": _checksum(folder / ALIGNED_WEIGHTS), "notes": dict(notes)}
    write_atomic(folder / ALIGNED_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_aligned(described: Path, weights: Path) -> tuple[Heads, Encoders]:
    """The heads and what they were trained on.

    Raises:
        WeightsError: a file does not hold such heads, or the two do not belong together.
    """
    content = read_json(described)
    try:
        encoders = Encoders(**content["encoders"])
        if _checksum(weights) != content["checksum"]:
            raise WeightsError(weights, f"must be the file that was written with {described.name}")
        state = load_file(weights)
        parts = []
        for kind in ("image", "text"):
            shape = state[f"{kind}.linear.weight"].shape
            parts.append(AlignedHead(shape[1], shape[0], len(state[f"{kind}.bank"])))
        heads = Heads(*parts)
        heads.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise WeightsError(described, f"must describe two encoders and their heads ({error!r})") from error
    return heads.eval(), encoders


def _checksum(path: Path) -> int:
    with path.open("rb") as file:
        return crc32(file)
