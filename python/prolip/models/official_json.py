"""Reads and writes a model configuration in the released checkpoints' JSON form."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from prolip.errors import UserError
from prolip.models.config import CLIP_LOGIT_SCALE, JsonDict, ModelConfig, TextConfig, VisionConfig
from prolip.store.typed_tables import decode

_IGNORED = {
    "vision_cfg": ("attn_pooler_", "timm_", "final_ln_after_pool"),
    "text_cfg": ("attn_pooler_", "hf_model_", "hf_pooler_type", "hf_proj_type", "pad_id", "final_ln_after_pool"),
}
"""Prefixes of official settings without effect here."""
_SUPPORTED_ONLY: dict[str, tuple[Any, ...]] = {
    "vision_cfg.pool_type": ("tok", "map"),
    "vision_cfg.pos_embed_type": ("learnable",),
    "vision_cfg.attentional_pool": (False,),
    "vision_cfg.output_tokens": (False,),
    "vision_cfg.patch_dropout": (0, 0.0),
    "text_cfg.attentional_pool": (False,),
    "text_cfg.output_tokens": (False,),
}
_NESTED = {
    "norm_kwargs": ("norm_eps", "eps"),
    "act_kwargs": ("gelu", "approximate"),
    "tokenizer_kwargs": ("tokenizer_clean", "clean"),
}
"""Our name of an official setting that is a table, and its only allowed key."""


def _read_block(block: str, given: Mapping[str, Any], kind: type[VisionConfig] | type[TextConfig]) -> JsonDict:
    read: JsonDict = {}
    known = {field.name for field in fields(kind)} - {name for name, _ in _NESTED.values()}
    for key, value in given.items():
        supported = _SUPPORTED_ONLY.get(f"{block}.{key}")
        name, inner = _NESTED.get(key, (key, ""))
        if supported is not None and value not in supported:
            raise UserError(f"{block}.{key}", f"must be {' or '.join(map(repr, supported))}", reprlib.repr(value))
        if inner and name in kind.__dataclass_fields__:
            if value and not (isinstance(value, Mapping) and set(value) == {inner}):
                raise UserError(f"{block}.{key}", f"must hold only {inner!r}", reprlib.repr(value))
            if value:
                read[name] = "exact" if value[inner] == "none" else value[inner]
        elif key in known:
            read[key] = value
        elif supported is None and not key.startswith(_IGNORED[block]):
            raise UserError(f"{block}.{key}", f"unknown setting{_nearest(key, known)}")
    return read


def _nearest(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def from_official_json(given: Mapping[str, Any]) -> ModelConfig:
    """From the official form.

    Raises:
        UserError: a setting is unknown, or the official code does not support it either (specification §1).
    """
    known = {"embed_dim", "quick_gelu", "init_logit_scale", "init_logit_bias", "output_dict", "vision_cfg", "text_cfg"}
    if given.get("model_type") != "prolip":  # transformers adds settings of its own
        for key in sorted(given.keys() - known):
            raise UserError(key, f"unknown setting{_nearest(key, known)}")
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in given or (key != "embed_dim" and not isinstance(given[key], Mapping)):
            raise UserError(key, "must be in a model's configuration", reprlib.repr(given.get(key)))
    text_block = dict(given["text_cfg"])
    if text_block.get("embed_cls", True):
        text_block.pop("pool_type", None)  # released files have one, without effect because of [CLS]
    scale = given.get("init_logit_scale")
    table = {
        "embed_dim": given["embed_dim"],
        "vision": _read_block("vision_cfg", given["vision_cfg"], VisionConfig),
        "text": _read_block("text_cfg", text_block, TextConfig),
        "quick_gelu": given.get("quick_gelu", False),
        "init_logit_scale": CLIP_LOGIT_SCALE if scale is None else scale,
        "init_logit_bias": given.get("init_logit_bias") or None,
    }
    return decode(ModelConfig, table)


def _changed(config: VisionConfig | TextConfig) -> JsonDict:
    nested = {name: (key, inner) for key, (name, inner) in _NESTED.items()}
    changed: JsonDict = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            key, inner = nested.get(field.name, (field.name, ""))
            changed[key] = {inner: value} if inner else list(value) if isinstance(value, tuple) else value
    return dict(sorted(changed.items()))


def to_official_json(config: ModelConfig) -> JsonDict:
    """In the official form: settings that differ from the defaults, keys sorted.

    Settings without an official name are written under ours where they differ from the released models, so that the
    official code refuses the file.
    """
    written: JsonDict = {
        "embed_dim": config.embed_dim,
        "vision_cfg": _changed(config.vision),
        "text_cfg": _changed(config.text),
    }
    for name in ("quick_gelu", "init_logit_scale", "init_logit_bias"):
        if getattr(config, name) != getattr(ModelConfig, name):
            written[name] = getattr(config, name)
    return dict(sorted(written.items()))
