"""Wrap a model of open_clip as a `Model`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.inference.model import Model, as_captions
from prolip.inference.preprocess import Preprocess
from prolip.models.config import Precision
from prolip.pixels import Preprocess as Exact
from prolip.pretrained.build_with_open_clip import build_named, import_open_clip, root_messages


def load_open_clip(
    source: str, named: str, device: torch.device, precision: Precision, cache_dir: str | Path | None
) -> Model:
    """Open a model that runs in open_clip; `named` as in `build_named`, `source` is the name in results."""
    name, network = build_named(named, cache_dir)
    try:
        with root_messages(logging.WARNING):
            tokenizer = import_open_clip().get_tokenizer(name, cache_dir=None if cache_dir is None else str(cache_dir))
    except (ImportError, OSError) as error:
        raise UserError(source, f"its tokenizer cannot be opened: {error}") from error
    return of_open_clip(network.eval(), tokenizer, source, device, precision=precision)


def of_open_clip(
    model: nn.Module,
    tokenizer: Callable[[list[str]], Tensor],
    name: str,
    device: torch.device,
    *,
    precision: Precision = "fp32",
) -> Model:
    """Wrap a model of open_clip, which has no variances, and move it to `device`.

    Args:
        model: a model from `open_clip.create_model`.
        tokenizer: a tokenizer from `open_clip.get_tokenizer`.
        name: name in results.
        device: where it runs.
        precision: precision of the towers.
    """
    network: Any = model.to(device)
    return Model(
        name=name,
        network=network,
        device=device,
        encode_pixels=partial(_encode, network.encode_image),
        encode_tokens=partial(_encode, network.encode_text),
        tokenize=partial(_tokenize, tokenizer),
        preprocess=Preprocess(Exact.of(network)),
        has_variances=False,
        precision=precision,
    )


def _encode(tower: Callable[[Tensor], Tensor], inputs: Tensor) -> Gaussian:
    return Gaussian.point(F.normalize(tower(inputs).float(), dim=-1))


def _tokenize(tokenizer: Callable[[list[str]], Tensor], captions: str | Sequence[str]) -> Tensor:
    return tokenizer(as_captions(captions)).long()
