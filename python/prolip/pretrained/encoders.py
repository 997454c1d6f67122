"""Frozen encoders of other libraries: an image tower or a text tower with its own preprocessing.

    timm:NAME, timm:NAME/FILE                                the features before the classifier
    open_clip:NAME/TAG, open_clip:NAME/FILE                  a tower's embeddings
    transformers:NAME or FOLDER                              a two-tower model's embeddings; else [CLS] of images, and
                                                             the mean of a text's tokens
    sentence-transformers:NAME or FOLDER                     texts, pooled as its folder says

B batch, L tokens, F features.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.errors import UserError, check
from prolip.images.preprocess import Preprocess
from prolip.pretrained.build_with_open_clip import build_named, import_open_clip
from prolip.pretrained.download import first_line, hub_file

IMAGES = ("timm", "open_clip", "transformers")
TEXTS = ("sentence-transformers", "open_clip", "transformers")
_FILES = {".bin", ".pt", ".pth", ".safetensors"}
_MAX_TOKENS = 512
"""Of a text, where the model allows more."""
_POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


@dataclass(frozen=True, kw_only=True)
class ImageTower:
    """Turns images into features."""

    network: nn.Module
    """From pixels [B, 3, H, W] to features [B, F]."""
    preprocess: Preprocess


@dataclass(frozen=True, kw_only=True)
class TextTower:
    """Turns texts into features."""

    network: nn.Module
    """From ids [B, L] to features [B, F]."""
    tokenize: Callable[[list[str]], Tensor]
    """Ids of a fixed length."""


def open_image_tower(source: str) -> ImageTower:
    """In evaluation mode, on the CPU.

    Raises:
        UserError: there is no such model, its library is missing, or its preprocessing cannot be reproduced.
    """
    kind, name = _split(source, "image", IMAGES)
    network: nn.Module
    if kind == "open_clip":
        whole: Any = build_named(name)[1].eval()
        return ImageTower(network=whole.visual, preprocess=Preprocess.of(whole))
    if kind == "timm":
        network = _of_timm(source, name).eval()
        return ImageTower(network=network, preprocess=Preprocess.of(network))
    transformers = _import("transformers", "transformers")
    network = _ImageFeatures(_opened(source, lambda: transformers.AutoModel.from_pretrained(name))).eval()
    settings = hub_file(name, "preprocessor_config.json") if not Path(name).is_dir() else Path(name)
    check(settings is not None, source, "must have a preprocessor_config.json")
    return ImageTower(network=network, preprocess=Preprocess.of(settings))


def open_text_tower(source: str) -> TextTower:
    """In evaluation mode, on the CPU.

    Raises:
        UserError: there is no such model, its library is missing, or it has an unknown module.
    """
    kind, name = _split(source, "text", TEXTS)
    if kind == "open_clip":
        model, whole = build_named(name)
        return TextTower(network=_OpenClipTexts(whole).eval(), tokenize=import_open_clip().get_tokenizer(model))
    transformers = _import("transformers", "transformers")
    pooling, is_normal, length = "mean", False, _MAX_TOKENS
    if kind == "sentence-transformers":
        if "/" not in name and not Path(name).is_dir():
            name = f"sentence-transformers/{name}"
        pooling, is_normal, length = _sentence_modules(source, name)
    tower = _opened(source, lambda: transformers.AutoModel.from_pretrained(name))
    tokenizer = _opened(source, lambda: transformers.AutoTokenizer.from_pretrained(name))
    shape = getattr(tower.config, "text_config", tower.config)
    places = getattr(shape, "max_position_embeddings", length) - getattr(shape, "position_offset", 0)
    length = min(length, places, tokenizer.model_max_length)
    network = _TextFeatures(tower, pooling, is_normal, tokenizer.pad_token_id or 0).eval()
    return TextTower(network=network, tokenize=Tokens(tokenizer, length))


def _split(source: str, field: str, kinds: tuple[str, ...]) -> tuple[str, str]:
    kind, _, name = source.partition(":")
    check(name and kind in kinds, field, f"must be {', '.join(f'{kind}:NAME' for kind in kinds)}", source)
    return kind, name


def _import(module: str, extra: str) -> Any:
    try:
        return __import__(module)
    except ModuleNotFoundError as error:
        raise UserError(module, f"not installed; pip install 'prolip[{extra}]'") from error


def _opened(source: str, build: Callable[[], Any]) -> Any:
    """What a library builds; its errors name the source."""
    try:
        return build()
    except (RuntimeError, OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(source, f"cannot be opened: {first_line(error)}") from error


def _of_timm(source: str, name: str) -> nn.Module:
    timm = _import("timm", "open_clip")
    model, slash, file = name.partition("/")
    if slash and Path(file).suffix in _FILES:
        check(Path(file).is_file(), source, "the file of weights is missing", file)
        settings = {"pretrained_cfg_overlay": {"file": file}}
    else:
        model, settings = name, {}
    built: nn.Module = _opened(source, lambda: timm.create_model(model, pretrained=True, num_classes=0, **settings))
    return built


def _sentence_modules(source: str, name: str) -> tuple[str, bool, int]:
    """How a folder of sentence-transformers pools, whether it normalises, and its maximum number of tokens."""

    def read(file: str) -> Any:
        found = Path(name) / file if Path(name).is_dir() else hub_file(name, file)
        return json.loads(found.read_text(encoding="utf-8")) if found is not None and found.is_file() else {}

    pooling, is_normal = "mean", False
    for module in read("modules.json") or [{"type": "Pooling"}]:
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            config = read(f"{module.get('path', '1_Pooling')}/config.json")
            modes = [mode for mode, on in config.items() if mode.startswith("pooling_mode") and on is True]
            modes = modes or [
                f"pooling_mode_{config.get('pooling_mode', 'mean')}_tokens".replace("cls_tokens", "cls_token")
            ]
            if len(modes) != 1 or modes[0] not in _POOLING:
                raise UserError(source, "its pooling must be of the mean or of [CLS]", ", ".join(modes))
            pooling = _POOLING[modes[0]]
        elif kind == "Normalize":
            is_normal = True
        elif kind != "Transformer":
            raise UserError(source, "its modules must be Transformer, Pooling and Normalize", kind)
    return pooling, is_normal, read("sentence_bert_config.json").get("max_seq_length") or _MAX_TOKENS


# ---- Modules --------------------------------------------------------------------------------------------------------


class _OpenClipTexts(nn.Module):
    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole
        del self.whole.visual

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.whole.encode_text(ids)
        return found


class _ImageFeatures(nn.Module):
    """A model's image embedding, or its first token, [CLS]."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        if hasattr(self.tower, "get_image_features"):
            return _embedding(self.tower.get_image_features(pixel_values=pixels))
        found: Tensor = self.tower(pixel_values=pixels).last_hidden_state
        check(found.ndim == 3, "image", "must be a model of tokens", type(self.tower).__name__)
        return found[:, 0]


class _TextFeatures(nn.Module):
    """A model's text embedding, or its tokens pooled. Ids of -1 are padding."""

    def __init__(self, tower: Any, pooling: str, is_normal: bool, pad: int) -> None:
        super().__init__()
        self.tower, self.pooling, self.is_normal, self.pad = tower, pooling, is_normal, pad

    def forward(self, ids: Tensor) -> Tensor:
        kept = ids >= 0
        used = max(1, int(kept.sum(1).max()))
        inputs = {"input_ids": ids.where(kept, self.pad), "attention_mask": kept.long()}
        if hasattr(self.tower, "get_text_features"):
            return _embedding(self.tower.get_text_features(**inputs))
        found = self.tower(**{name: value[:, :used] for name, value in inputs.items()}).last_hidden_state
        weights = kept[:, :used, None].to(found)
        pooled: Tensor = (
            found[:, 0] if self.pooling == "cls" else (found * weights).sum(1) / weights.sum(1).clamp(min=1)
        )
        return F.normalize(pooled, dim=-1) if self.is_normal else pooled


def _embedding(found: Any) -> Tensor:
    embedding: Tensor = getattr(found, "pooler_output", found)
    return embedding


class Tokens:
    """Ids are padded at the end with -1."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer = tokenizer
        self.length = length

    def __call__(self, texts: list[str]) -> Tensor:
        """Ids i64 [B, L]."""
        rows = self.tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        ids = torch.full((len(rows), self.length), -1)
        for row, given in zip(ids, rows, strict=True):
            row[: len(given)] = torch.tensor(given)
        return ids
