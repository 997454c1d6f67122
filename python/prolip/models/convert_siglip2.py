"""Converts SigLIP 2 with native aspect (NaFlex) from the files of transformers, without that package."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from prolip.models.config import JsonDict, ModelConfig, TextConfig, VisionConfig
from prolip.models.convert_open_clip import State, fold_pixels, mlp_ratio, released_names, start
from prolip.models.prolip import ProLIP
from prolip.store.typed_tables import decode

_GREY = (0.5, 0.5, 0.5)
"""Mean and standard deviation of its pixels."""


@dataclass(frozen=True, kw_only=True)
class _Tower:
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    patch_size: int = 16
    num_patches: int = 256
    vocab_size: int = 32000
    max_position_embeddings: int = 64

    def settings(self, uncertainty: bool) -> dict[str, Any]:
        """What both our towers have."""
        return {
            "layers": self.num_hidden_layers,
            "width": self.hidden_size,
            "mlp_ratio": mlp_ratio(self.intermediate_size, self.hidden_size),
            "norm_eps": self.layer_norm_eps,
            "gelu": "tanh",
            "embed_unc": uncertainty,
            "unc_seen": not uncertainty,
        }


@dataclass(frozen=True, kw_only=True)
class _Config:
    vision_config: _Tower = _Tower()
    text_config: _Tower = _Tower()


def siglip2_config(given: JsonDict, *, uncertainty: bool = True) -> ModelConfig:
    """The architecture in a config.json of transformers; without `uncertainty`, it has no [UNC] parts.

    The maximum number of patches is that of the position table, as in SigLIP 2's own image processor, which resizes by
    a bilinear filter.
    """
    config = decode(_Config, given, drop_unknown=True)
    image, words = config.vision_config, config.text_config
    vision = VisionConfig(
        head_width=image.hidden_size // image.num_attention_heads,
        patch_size=image.patch_size,
        image_size=image.patch_size * math.isqrt(image.num_patches),
        image_seq_len=image.num_patches,
        interpolation="bilinear",
        no_ln_pre=True,
        pool_type="map",
        **image.settings(uncertainty),
    )
    text = TextConfig(
        heads=words.num_attention_heads,
        context_length=words.max_position_embeddings,
        vocab_size=words.vocab_size,
        log_var_source="unc",
        embed_cls=False,
        pool_type="last",
        tokenizer_clean="lower",
        **words.settings(uncertainty),
    )
    return ModelConfig(embed_dim=image.hidden_size, vision=vision, text=text, init_logit_bias=-10.0)


def siglip2_network(state: State, config: ModelConfig) -> ProLIP:
    """The model of `siglip2_config` with the tensors of model.safetensors, in evaluation mode."""
    tensors = released_names(state)
    for name in [name for name in tensors if ".q_proj." in name]:
        parts = [tensors.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        tensors[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    for name in tensors.keys() & {"logit_scale", "logit_bias", "visual.attn_pool.latent"}:
        tensors[name] = tensors[name].squeeze(0)
    tensors["visual.proj"] = torch.eye(config.embed_dim)
    fold_pixels(tensors, _GREY, _GREY, 0)
    return start(config, tensors)
