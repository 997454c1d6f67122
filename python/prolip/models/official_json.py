"""Reads and writes a model configuration in the JSON form of the released checkpoints."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from prolip.errors import UserError
from prolip.files import decode
from prolip.models.config import CLIP_LOGIT_SCALE, Gelu, JsonDict, ModelConfig, TextConfig, VisionConfig

_VISION_IGNORED = ("attn_pooler_", "timm_", "final_ln_after_pool")
_TEXT_IGNORED = (
    "attn_pooler_",
    "hf_model_",
    "hf_pooler_type",
    "hf_proj_type",
    "pad_id",
    "final_ln_after_pool",
)
_SUPPORTED_ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "vision_cfg": {
        "pool_type": ("tok", "map"),
        "pos_embed_type": ("learnable",),
        "attentional_pool": (False,),
        "output_tokens": (False,),
        "patch_dropout": (0, 0.0),
    },
    "text_cfg": {
        "attentional_pool": (False,),
        "output_tokens": (False,),
    },
}


def _norm_eps(block: str, value: object) -> float | None:
    """Return the epsilon in official `norm_kwargs`; None if it is not set."""
    if value is None or value == {}:
        return None
    if not isinstance(value, Mapping) or set(value) != {"eps"} or type(value["eps"]) not in (int, float):
        raise UserError(f"{block}.norm_kwargs is {reprlib.repr(value)}: only {{'eps': number}} is supported")
    return float(value["eps"])


def _gelu(block: str, value: object) -> Gelu:
    """Return the form of the GELU in official `act_kwargs`."""
    if value is None or value in ({}, {"approximate": "none"}):
        return "exact"
    if value != {"approximate": "tanh"}:
        raise UserError(f"{block}.act_kwargs is {reprlib.repr(value)}: only {{'approximate': 'tanh'}} is supported")
    return "tanh"


def _read_block(block: str, given: Mapping[str, Any], known: set[str], ignored: tuple[str, ...]) -> JsonDict:
    """Return the keyword arguments for a tower's configuration from its official block."""
    read: JsonDict = {}
    for key, value in given.items():
        supported = _SUPPORTED_ONLY[block].get(key)
        if supported is not None and value not in supported:
            raise UserError(
                f"{block}.{key} is {reprlib.repr(value)}: only {' or '.join(map(repr, supported))} is supported"
            )
        if key == "act_kwargs":
            read["gelu"] = _gelu(block, value)
        elif key == "norm_kwargs":
            eps = _norm_eps(block, value)
            if eps is not None:
                read["norm_eps"] = eps
        elif key == "tokenizer_kwargs" and block == "text_cfg":
            if value and not (isinstance(value, Mapping) and set(value) == {"clean"}):
                raise UserError(
                    f"text_cfg.tokenizer_kwargs is {reprlib.repr(value)}: only {{'clean': name}} is supported"
                )
            read["tokenizer_clean"] = value["clean"] if value else None
        elif key in known:
            read[key] = value
        elif supported is None and not key.startswith(ignored):
            raise UserError(f"{block}.{key} is not a known setting{_nearest(key, known)}")
    return read


def _nearest(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), 1)
    return f": did you mean {close[0]!r}?" if close else ""


def from_official_json(given: Mapping[str, Any]) -> ModelConfig:
    """Read a configuration in the official form.

    Raises:
        UserError: a setting is unknown, or the official code does not support it either (specification §1).
    """
    known = {"embed_dim", "quick_gelu", "init_logit_scale", "init_logit_bias", "output_dict", "vision_cfg", "text_cfg"}
    saved_by_transformers = given.get("model_type") == "prolip"  # which adds settings of its own
    for key in given:
        if key not in known and not saved_by_transformers:
            raise UserError(f"{key} is not a known setting{_nearest(key, known)}")
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in given:
            raise UserError(f"{key} is missing from the model's configuration")
    for key in ("vision_cfg", "text_cfg"):
        if not isinstance(given[key], Mapping):
            raise UserError(f"{key} is {reprlib.repr(given[key])}: it must be a table")
    vision_fields = {field.name for field in fields(VisionConfig)} - {"norm_eps", "gelu"}
    text_fields = {field.name for field in fields(TextConfig)} - {"norm_eps", "gelu", "tokenizer_clean"}
    text_block = dict(given["text_cfg"])
    if text_block.get("embed_cls", True):
        text_block.pop("pool_type", None)  # released files have one, without effect because of [CLS]
    scale = given.get("init_logit_scale")
    table = {
        "embed_dim": given["embed_dim"],
        "vision": _read_block("vision_cfg", given["vision_cfg"], vision_fields, _VISION_IGNORED),
        "text": _read_block("text_cfg", text_block, text_fields, _TEXT_IGNORED),
        "quick_gelu": given.get("quick_gelu", False),
        "init_logit_scale": CLIP_LOGIT_SCALE if scale is None else scale,
        "init_logit_bias": given.get("init_logit_bias") or None,
    }
    return decode(ModelConfig, table)


def _changed(config: VisionConfig | TextConfig) -> JsonDict:
    """Return the settings of a tower that differ from the defaults, as an official block."""
    changed: JsonDict = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        if field.name == "norm_eps":
            changed["norm_kwargs"] = {"eps": value}
        elif field.name == "gelu":
            changed["act_kwargs"] = {"approximate": value}
        elif field.name == "tokenizer_clean":
            changed["tokenizer_kwargs"] = {"clean": value}
        else:
            changed[field.name] = list(value) if isinstance(value, tuple) else value
    return dict(sorted(changed.items()))


def to_official_json(config: ModelConfig) -> JsonDict:
    """Return `config` in the official form: settings that differ from the defaults, keys sorted.

    `final_norm`, `unc_seen` and `log_var_source` have no official key, and "map" is not an official pool_type. Where
    they differ from the released models they are written under our names, so that the official code refuses the file
    instead of building another model.
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
