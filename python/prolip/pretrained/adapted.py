"""Models of `prolip adapt`: a frozen model with an adapter, which turns its embeddings into Gaussians.

B batch, D embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.models.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS, Adapter, Frozen, read_adapter
from prolip.models.weights import CONFIG_FILE, WeightsError
from prolip.pretrained.model import Model, weights_digest
from prolip.pretrained.sources import OPEN_CLIP_PREFIX, hub_repository, read_beside

_LOCAL = f"{OPEN_CLIP_PREFIX}local-dir:"
_WEIGHTS = {".bin", ".pt", ".pth", ".safetensors"}
"""Extensions of FILE in open_clip:NAME/FILE."""


class AdaptedNetwork(nn.Module):
    """The frozen network and the adapter. Scale and bias of the similarity are the adapter's."""

    def __init__(self, frozen: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.adapter = adapter

    @property
    def logit_scale(self) -> nn.Parameter:
        """Log of the similarity's scale."""
        return self.adapter.logit_scale

    @property
    def logit_bias(self) -> nn.Parameter | None:
        """Bias of the similarity; None without one."""
        return self.adapter.logit_bias


def adapted(frozen: Model, adapter: Adapter, name: str) -> Model:
    """Return the frozen model with the adapter's Gaussians, scale and bias, on the frozen model's device.

    Args:
        frozen: any model; its variances, if any, are not used.
        adapter: what `prolip adapt` learned on embeddings of that model.
        name: name in results.
    """
    network = AdaptedNetwork(frozen.network, adapter.to(frozen.device)).eval()
    return dataclasses.replace(
        frozen,
        name=name,
        network=network,
        encode_pixels=partial(_encode, frozen.encode_pixels, adapter.image),
        encode_tokens=partial(_encode, frozen.encode_tokens, adapter.text),
        has_variances=adapter.has_variances,
        epistemic=adapter.epistemic,
        calibration=None,  # the frozen model's does not hold for this one
    )


def _encode(encode: Callable[[Tensor], Gaussian], head: nn.Module, inputs: Tensor) -> Gaussian:
    features = encode(inputs).mean.float()
    with torch.autocast(features.device.type, enabled=False):
        found: Gaussian = head(features)
    return found


def find_adapter(source: str, cache_dir: str | Path | None = None) -> tuple[Adapter, Frozen, Path] | None:
    """Return the adapter in a folder or hub repository, its frozen model, and its folder; None if it has no adapter.

    Raises:
        UserError: the adapter is incomplete or damaged, or cannot be downloaded.
    """
    if hub_repository(source) is not None and read_beside(source, CONFIG_FILE, cache_dir) is not None:
        return None
    described = read_beside(source, ADAPTER_FILE, cache_dir)
    if described is None:
        return None
    weights = read_beside(source, ADAPTER_WEIGHTS, cache_dir)
    if weights is None:
        raise WeightsError(f"{source} has no {ADAPTER_WEIGHTS}, which belongs to its {ADAPTER_FILE}")
    return *read_adapter(described, weights), described.parent


def absolute_source(source: str) -> str:
    """Return a model source, with an absolute path if it is a path on this machine.

    Raises:
        UserError: there is no such path.
    """
    prefix, path = _path_in(source)
    if path is None:
        return source
    if not path.exists():
        raise UserError(f"checkpoint: {source} does not exist: name the model that made the embeddings")
    return f"{prefix}{path.absolute()}"


def find_frozen(frozen: Frozen, folder: Path) -> str:
    """Return the source of an adapter's frozen model, which may have moved into the adapter's folder or beside it.

    Raises:
        UserError: the source is a path, and the model is in none of these places.
    """
    prefix, path = _path_in(frozen.source)
    if path is None:
        return frozen.source
    for place in (path, folder / path.name, folder.absolute().parent / path.name):
        if place.exists():
            return f"{prefix}{place}"
    raise UserError(
        f"{folder} adapts the model {frozen.source}, which is not there: put it into that folder or beside it as "
        f'{path.name}, or change "source" in {ADAPTER_FILE}'
    )


def check_frozen(model: Model, frozen: Frozen, folder: Path) -> None:
    """Check that a model has the weights with which the adapter was made.

    Raises:
        UserError: it has other weights.
    """
    if frozen.weights is not None and weights_digest(model.network) != frozen.weights:
        raise UserError(f"{folder} adapts other weights than {model.name} has now: adapt it again")


def _path_in(source: str) -> tuple[str, Path | None]:
    """Split a source into a prefix and a path; the path is None if it names no file or folder of this machine."""
    if source.startswith(_LOCAL):
        return _LOCAL, Path(source.removeprefix(_LOCAL))
    if source.startswith(OPEN_CLIP_PREFIX):
        name, slash, weights = source.partition("/")
        return (f"{name}{slash}", Path(weights)) if Path(weights).suffix in _WEIGHTS else ("", None)
    return ("", Path(source)) if hub_repository(source) is None else ("", None)
