"""Open two frozen encoders with their heads as one model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from prolip.errors import UserError
from prolip.inference.encoder import Encoder
from prolip.inference.model import PROBES, Model, weights_digest
from prolip.models.aligned import AlignedNetwork, Encoders, Heads
from prolip.models.config import Precision
from prolip.pretrained.encoders import ImageTower, TextTower, open_image_tower, open_text_tower


def image_digest(tower: ImageTower) -> str:
    """Digest of an image tower's weights and preprocessing."""
    return _digest(tower.network, repr(tower.preprocess))


def text_digest(tower: TextTower) -> str:
    """Digest of a text tower's weights and tokenizer."""
    return _digest(tower.network, repr(tower.tokenize(PROBES).tolist()))


def _digest(network: nn.Module, inputs: str) -> str:
    return hashlib.sha256((weights_digest(network) + inputs).encode()).hexdigest()[:32]


def open_aligned(
    heads: Heads, encoders: Encoders, folder: Path, name: str, device: torch.device, precision: Precision
) -> Model:
    """The model of a folder that `prolip adapt --image --text` wrote.

    Raises:
        UserError: an encoder's library is missing, or it is not the one that the heads were trained on.
    """
    image, text = open_image_tower(encoders.image), open_text_tower(encoders.text)
    for source, now, before in (
        (encoders.image, image_digest(image), encoders.image_digest),
        (encoders.text, text_digest(text), encoders.text_digest),
    ):
        if now != before:
            raise UserError(folder, f"{source} has changed since its head was trained; adapt it again")
    return of_towers(image, text, heads, name, device, precision)


def of_towers(
    image: ImageTower, text: TextTower, heads: Heads, name: str, device: torch.device, precision: Precision = "fp32"
) -> Model:
    """The model of two towers and their heads, moved to `device`."""
    network = AlignedNetwork(image.network, text.network, heads).to(device).eval()
    encoder = Encoder(
        network=network,
        device=device,
        encode_pixels=network.encode_image,  # type: ignore[arg-type]
        encode_tokens=network.encode_text,
        preprocess=image.preprocess,
        tokenizer=text.tokenize,
        precision=precision,
    )
    return Model(name=name, encoder=encoder, has_variances=len(heads.image.bank) > 0)
