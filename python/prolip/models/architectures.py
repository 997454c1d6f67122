"""The released architectures, one at native aspect, and the demo's."""

from __future__ import annotations

import math
from dataclasses import replace

from prolip.models.config import ModelConfig, TextConfig, VisionConfig

_SIGLIP_CLEAN = "canonicalize"
_BASE = ModelConfig(
    embed_dim=768,
    vision=VisionConfig(embed_unc=True),
    text=TextConfig(norm_eps=1e-6, hf_tokenizer_name="timm/ViT-B-16-SigLIP", tokenizer_clean=_SIGLIP_CLEAN),
    init_logit_bias=-10.0,
)
_DEMO_SCALE = 14.29
_DEMO_LOG_VAR = -8.0
_DEMO_DIM = 128

ARCHITECTURES: dict[str, ModelConfig] = {
    "ViT-B-16": _BASE,
    "ViT-B-16-long": replace(_BASE, text=replace(_BASE.text, context_length=256)),
    # The image tower of open_clip's "naflex_ViT-B-16", with [CLS].
    "ViT-B-16-NaFlex": replace(
        _BASE, vision=VisionConfig(embed_unc=True, image_seq_len=576, pos_embed_interp_mode="bicubic")
    ),
    # As many text layers as the SigLIP model of this size.
    "ViT-L-16": replace(
        _BASE,
        embed_dim=1024,
        vision=VisionConfig(embed_unc=True, image_size=256, layers=24, width=1024),
        text=replace(_BASE.text, width=1024, heads=16, layers=24, hf_tokenizer_name="timm/ViT-L-16-SigLIP-256"),
    ),
    "ViT-SO400M-14": replace(
        _BASE,
        embed_dim=1152,
        vision=VisionConfig(embed_unc=True, patch_size=14, layers=27, width=1152, head_width=72, mlp_ratio=3.7362),
        text=replace(
            _BASE.text,
            width=1152,
            heads=16,
            layers=27,
            mlp_ratio=3.7362,
            hf_tokenizer_name="timm/ViT-SO400M-14-SigLIP",
        ),
    ),
    "ViT-H-14": ModelConfig(
        embed_dim=1024,
        quick_gelu=True,
        vision=VisionConfig(embed_unc=True, patch_size=14, layers=32, width=1280, head_width=80),
        text=TextConfig(context_length=77, vocab_size=49408, width=1024, heads=16, layers=24),
        init_logit_bias=-10.0,
    ),
    # Small enough for two cores. The initial bias cancels what the initial variances add to the logits.
    "demo": ModelConfig(
        embed_dim=_DEMO_DIM,
        vision=VisionConfig(
            embed_unc=True,
            patch_size=6,
            image_size=36,
            width=128,
            head_width=32,
            layers=4,
            init_unc_bias=_DEMO_LOG_VAR,
            final_norm="once",
        ),
        text=TextConfig(
            context_length=20,
            vocab_size=2000,
            width=128,
            heads=4,
            layers=2,
            init_unc_bias=_DEMO_LOG_VAR,
            log_var_source="unc",
        ),
        init_logit_scale=math.log(_DEMO_SCALE),
        init_logit_bias=-10.0 + _DEMO_SCALE * _DEMO_DIM * math.exp(_DEMO_LOG_VAR),
    ),
}
"""By name."""
