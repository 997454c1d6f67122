"""Build open_clip models by name, with open_clip itself (an extra), and wrap them as a `Model`."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.models.config import Precision
from prolip.models.open_clip import StartError
from prolip.pretrained.model import Model, as_captions
from prolip.pretrained.preprocess import Preprocess


def import_open_clip() -> Any:
    """Import open_clip, which only the extra `open_clip` installs.

    Raises:
        UserError: it is not installed.
    """
    try:
        import open_clip
    except ModuleNotFoundError as error:
        if error.name != "open_clip":
            raise
        raise UserError("models of open_clip need open_clip: pip install 'prolip[open_clip]'") from error
    return open_clip


def build_named(named: str, cache_dir: str | Path | None = None) -> tuple[str, nn.Module]:
    """Build the model named after "open_clip:" (NAME/TAG, NAME/FILE, hf-hub:... or local-dir:...); returns name, model.

    Downloads go to `cache_dir`, or to the hub client's cache.

    Raises:
        UserError: open_clip is not installed.
        StartError: open_clip knows no such model or weights, or no weights are named.
    """
    if named.startswith(("hf-hub:", "local-dir:")):
        return named, build(named, None, cache_dir)
    name, _, weights = named.partition("/")
    open_clip = import_open_clip()
    if name not in (models := open_clip.list_models()):
        close = difflib.get_close_matches(name, models, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise StartError(f"open_clip:{named}: open_clip has no such model{hint}")
    if not weights and (tags := open_clip.list_pretrained_tags_by_model(name)):
        raise StartError(f"open_clip:{named}: must name its weights, such as open_clip:{name}/{tags[0]}")
    return name, build(name, weights or None, cache_dir)


@contextmanager
def root_messages(level: int) -> Iterator[None]:
    """Hide messages below `level` that a package writes on the root logger, such as open_clip's ten lines per model."""

    def is_shown(record: logging.LogRecord) -> bool:
        return record.levelno >= level

    root = logging.getLogger()
    root.addFilter(is_shown)
    try:
        yield
    finally:
        root.removeFilter(is_shown)


def build(name: str, pretrained: str | Path | None, cache_dir: str | Path | None = None) -> nn.Module:
    """Build an open_clip model with the weights of a tag or a file; "hf-hub:..." names bring their own.

    Raises:
        UserError: open_clip is not installed.
        StartError: open_clip knows no such model or weights.
    """
    open_clip = import_open_clip()
    try:
        with root_messages(logging.WARNING):
            built: nn.Module = open_clip.create_model(
                name,
                pretrained=None if pretrained is None else str(pretrained),
                weights_only=True,
                require_pretrained=True,
                cache_dir=None if cache_dir is None else str(cache_dir),
            )
    except (RuntimeError, OSError, SafetensorError, TypeError) as error:  # TypeError: an unknown setting
        raise StartError(f"open_clip:{name}/{pretrained or ''}: open_clip cannot build it: {error}") from error
    return built


def load_open_clip(
    source: str, named: str, device: torch.device, precision: Precision, cache_dir: str | Path | None
) -> Model:
    """Open a model that runs in open_clip; `named` as in `build_named`, `source` is the name in results.

    Raises:
        UserError: open_clip is not installed, knows no such model or weights, or cannot make its tokenizer.
    """
    name, network = build_named(named, cache_dir)
    try:
        with root_messages(logging.WARNING):
            tokenizer = import_open_clip().get_tokenizer(name, cache_dir=None if cache_dir is None else str(cache_dir))
    except (ImportError, OSError) as error:
        raise UserError(f"{source}: its tokenizer cannot be opened: {error}") from error
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
        preprocess=_open_clip_preprocess(network.visual.preprocess_cfg),
        has_variances=False,
        precision=precision,
    )


def _encode(tower: Callable[[Tensor], Tensor], inputs: Tensor) -> Gaussian:
    return Gaussian.point(F.normalize(tower(inputs).float(), dim=-1))


def _tokenize(tokenizer: Callable[[list[str]], Tensor], captions: str | Sequence[str]) -> Tensor:
    return tokenizer(as_captions(captions)).long()


def _open_clip_preprocess(settings: dict[str, Any]) -> Preprocess:
    """The preprocessing of an open_clip model; without `transform` if the loader gives the same pixels."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(**settings)
    height, width = (config.size, config.size) if isinstance(config.size, int) else config.size[-2:]
    same = height == width and config.resize_mode == "shortest" and config.interpolation in {"bicubic", "random"}
    red, green, blue = zip(map(float, config.mean), map(float, config.std), strict=True)
    return Preprocess(
        size=(height, width),
        mean=(red[0], green[0], blue[0]),
        std=(red[1], green[1], blue[1]),
        resize_mode=config.resize_mode,
        interpolation=config.interpolation,
        transform=None if same else image_transform_v2(config, is_train=False),
    )
