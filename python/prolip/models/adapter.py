"""Adapters, which turn embeddings of a frozen CLIP or SigLIP into Gaussians, and their two files. D embedding.

A head per tower reads an embedding of unit norm. An adapter has its own similarity scale and bias.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.models.config import AdapterConfig
from prolip.models.convert_open_clip import start_from
from prolip.models.counted import CountedHead
from prolip.models.prolip import ProLIP, normalised
from prolip.models.weights import WeightsError, read_json
from prolip.store.atomic_writes import write_atomic
from prolip.store.file_contents import crc32
from prolip.store.typed_tables import decode

ADAPTER_FILE = "adapter.json"
ADAPTER_WEIGHTS = "adapter.safetensors"


class VarianceHead(nn.Module):
    """Predicts log variances from embeddings: layer norm, then a linear map or a network with one hidden layer."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        dim, width = config.embed_dim, config.hidden or config.embed_dim
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, config.hidden) if config.hidden else None
        self.log_var = nn.Linear(width, dim)
        self.residual = nn.Linear(width, dim) if config.means == "residual" else None
        for last in (self.log_var, self.residual):
            if last is not None:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Gaussian:
        """Gaussians [..., D] with means of unit norm, for embeddings [..., D] of unit norm."""
        inner = self.norm(features)
        if self.hidden is not None:
            inner = F.gelu(self.hidden(inner))
        mean = features if self.residual is None else F.normalize(features + self.residual(inner), dim=-1)
        return Gaussian(mean, self.log_var(inner))


class Adapter(nn.Module):
    """A head for images, a head for texts, and the similarity's bias and *log* of its scale."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.image, self.text = (
            VarianceHead(config) if counted is None else CountedHead(counted, config.embed_dim)
            for counted in (config.image, config.text)
        )
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_bias = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def set_logits(self, scale: float, bias: float) -> None:
        """Set the scale (above 0) and the bias of the similarity."""
        self.logit_scale.copy_(torch.tensor(scale).log())
        self.logit_bias.fill_(bias)


class AdaptedNetwork(nn.Module):
    """A frozen network and its adapter. Scale and bias of the similarity are the adapter's."""

    def __init__(self, frozen: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.adapter = adapter

    # Properties: a parameter registered twice would change the digest of the weights.

    @property
    def logit_scale(self) -> nn.Parameter:
        """Log of the similarity's scale."""
        return self.adapter.logit_scale

    @property
    def logit_bias(self) -> nn.Parameter:
        """Bias of the similarity."""
        return self.adapter.logit_bias

    def as_prolip(self) -> ProLIP:
        """On the CPU as one ProLIP network, whose towers end in the adapter's heads.

        Raises:
            StartError: the frozen network is of open_clip, and cannot be converted.
        """
        network = self.frozen if isinstance(self.frozen, ProLIP) else start_from(self.frozen, uncertainty=False)
        network.visual = _AdaptedTower(network.visual, self.adapter.image)  # type: ignore[assignment]
        network.text = _AdaptedTower(network.text, self.adapter.text)  # type: ignore[assignment]
        network.logit_scale, network.logit_bias = self.logit_scale, self.logit_bias
        return network.eval()


class _AdaptedTower(nn.Module):
    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, inputs: Tensor) -> Gaussian:
        """The Gaussians [B, D] of pixels or token ids."""
        gaussian: Gaussian = self.head(normalised(self.encoder(inputs)).mean)
        return gaussian


class Frozen(NamedTuple):
    """The model whose embeddings an adapter reads."""

    source: str | None
    """The model, as `prolip.load` takes it; paths of this machine are absolute. None if it is not known."""
    weights: str | None
    """Digest of its tensors; None if unknown."""
    tokenizer: str | None
    """Its tokenizer, as `prolip.load` takes it; None for the model's own."""


def save_adapter(adapter: Adapter, frozen: Frozen, folder: Path, notes: Mapping[str, Any]) -> None:
    """Write adapter.safetensors (float32) and adapter.json, with `notes`, such as the training settings, as entries."""
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in adapter.state_dict().items()}
    write_atomic(folder / ADAPTER_WEIGHTS, save(tensors))
    content = {
        "frozen": frozen._asdict(),
        "adapter": dataclasses.asdict(adapter.config),
        "checksum": _checksum(folder / ADAPTER_WEIGHTS),
        "notes": dict(notes),
    }
    write_atomic(folder / ADAPTER_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_adapter(described: Path, weights: Path) -> tuple[Adapter, Frozen]:
    """Read an adapter (adapter.json, adapter.safetensors) in evaluation mode, on the CPU, and its frozen model.

    Raises:
        WeightsError: a file does not hold an adapter, or the two do not belong together.
    """
    content = read_json(described)
    try:
        frozen = Frozen(**content["frozen"])
        if not isinstance(frozen.source, str | None):
            raise UserError("frozen.source", "must be a string or null", f"{frozen.source!r}")
        config = decode(AdapterConfig, content["adapter"])
        expected = content["checksum"]
    except (KeyError, TypeError, UserError) as error:
        raise WeightsError(described, f"must describe an adapter ({error!r})") from error
    if _checksum(weights) != expected:
        raise WeightsError(weights, f"must be the file that was written with {described.name}")
    try:
        state = load_file(weights)
        with torch.device("meta"):
            adapter = Adapter(config)
        adapter.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True, assign=True)
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise WeightsError("weights", "must be finite")
    except Exception as error:  # a stranger's file can raise anything
        raise WeightsError(f"{weights} does not hold the adapter of {described.name}", error) from error
    return adapter.eval(), frozen


def _checksum(path: Path) -> int:
    with path.open("rb") as file:
        return crc32(file)
