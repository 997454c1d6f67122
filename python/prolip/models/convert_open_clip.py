"""Converts open_clip's CLIP and SigLIP models to ProLIP, as a start for training.

The means are open_clip's embeddings. The new [UNC] parts are initialised as in any new model (specification §2.5), and
no other token attends to [UNC]. All settings are read from the modules that open_clip built, not from the model's name.

W width, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prolip.errors import UserError
from prolip.images.tensors import OPENAI_MEAN, OPENAI_STD
from prolip.models.config import START_WITHOUT_BIAS, ModelConfig, TextConfig, VisionConfig
from prolip.models.prolip import ProLIP

State = dict[str, Tensor]

_TEXT_NAMES = ("positional_embedding", "token_embedding", "transformer", "ln_final", "text_projection")
_BLOCK = ("mlp.c_fc", "ln_1", "mlp.gelu", "ls_1")
_TIMM_BLOCK = ("mlp.fc1", "norm1", "mlp.act", "ls1")
_NAMES = {
    "visual.trunk.blocks.": "visual.transformer.resblocks.",
    "visual.trunk.pos_embed": "visual.positional_embedding",
    "visual.trunk.embeds.pos_embed": "visual.positional_embedding",
    "visual.trunk.patch_embed.proj.": "visual.conv1.",
    "visual.trunk.embeds.proj.": "visual.conv1.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.head.probe": "visual.attn_pool.latent",
    "vision_model.head.attention.": "visual.attn_pool.attn.",
    "vision_model.head.layernorm.": "visual.attn_pool.norm.",
    "vision_model.head.": "visual.attn_pool.",
    "text_model.encoder.layers.": "text.transformer.resblocks.",
    "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
    "text_model.embeddings.": "text.",
    "text_model.final_layer_norm.": "text.ln_final.",
    "text_model.head.": "text.text_projection.",
    ".layer_norm1.": ".ln_1.",
    ".self_attn.": ".attn.",
    ".layer_norm2.": ".ln_2.",
    ".norm1.": ".ln_1.",
    ".attn.qkv.": ".attn.in_proj_",
    ".attn.proj.": ".attn.out_proj.",
    ".norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".ls1.": ".ls_1.",
    ".ls2.": ".ls_2.",
}
"""Released names of parts of timm's vision transformers and of transformers' SigLIP 2."""
_NAFLEX = {
    "pos_embed_ar_preserving": False,
    "pos_embed_antialias": True,
    "pos_embed_align_corners": False,
    "pos_embed_use_grid_sample": False,
    "channels_last": True,
    "norm_input": None,
}
"""Settings of timm's native tower that ours shares."""
_TIMM_POOL = {"proj": "attn.out_proj", "norm": "norm", "mlp.c_fc": "mlp.c_fc", "mlp.c_proj": "mlp.c_proj"}
"""Of the attention pool, whose MLP is renamed already."""


class StartError(UserError):
    """An open_clip model cannot be converted; the message names the part."""


def released_names(state: Mapping[str, Tensor]) -> State:
    """Rename the tensors of a model of open_clip or transformers; names without a counterpart stay.

    A linear patch filter, whose inputs are pixels with three channels each, becomes a convolution's.
    """
    renamed: State = {}
    for name, tensor in state.items():
        # CLIP's text tower has its parts at the top level.
        new = f"text.{name}" if name.startswith(_TEXT_NAMES) else name
        for old, own in _NAMES.items():
            new = new.replace(old, own)
        renamed[new] = tensor
    filters = renamed.get("visual.conv1.weight")
    if filters is not None and filters.ndim == 2:
        side = math.isqrt(filters.shape[1] // 3)
        renamed["visual.conv1.weight"] = filters.reshape(-1, side, side, 3).permute(0, 3, 1, 2)
    return renamed


def start_from(model: nn.Module, *, uncertainty: bool = True) -> ProLIP:
    """Convert an open_clip model to ProLIP, on the CPU, in single precision.

    CLIP models have no similarity bias: they get the released loader's bias -10 and scale 10. If the model was trained
    with another mean and std of pixels than our loader's, its weights are adapted.

    Args:
        model: an open_clip CLIP or CustomTextCLIP, with open_clip's text tower. Its image tower is open_clip's ViT with
            [CLS], or timm's ViT with attention pooling (SigLIP), also with native aspect (NaFlex).
        uncertainty: add the [UNC] parts. Without them images and texts are points.

    Raises:
        StartError: a part of the model is not supported.
    """
    stored = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in model.state_dict().items()}
    state = released_names(stored)
    text, quick = _text_config(getattr(model, "text", model), state, uncertainty)
    visual: Any = model.visual
    vision, image_quick, tensors = (_from_timm if hasattr(visual, "trunk") else _from_vit)(visual, state, uncertainty)
    if quick != image_quick:
        raise StartError("activation", "must be the same in both towers; one uses the quick GELU")
    tensors |= _text_state(state)
    preprocess = getattr(visual, "preprocess_cfg", None) or {}
    mean = preprocess.get("mean") or getattr(visual, "image_mean", None) or OPENAI_MEAN
    std = preprocess.get("std") or getattr(visual, "image_std", None) or OPENAI_STD
    fold_pixels(tensors, mean, std, len(tensors["visual.positional_embedding"]) - vision.num_patches)
    without = {name: torch.tensor(value) for name, value in START_WITHOUT_BIAS.items()}
    tensors |= {name: (state if "logit_bias" in state else without)[name].reshape(()) for name in without}
    bias = float(tensors["logit_bias"])
    dim = tensors["visual.proj"].shape[1]
    return start(ModelConfig(embed_dim=dim, vision=vision, text=text, quick_gelu=quick, init_logit_bias=bias), tensors)


def _block_settings(block: Any, names: tuple[str, ...], where: str) -> tuple[int, bool, dict[str, Any]]:
    """Heads, whether the GELU is the quick one, and more settings of a tower, from its first block."""
    linear, norm, activation, scale = (block.get_submodule(name) for name in names)
    kind = type(activation).__name__
    if kind not in {"GELU", "GELUTanh", "QuickGELU"}:
        raise StartError(where, "its activation must be supported", kind)
    is_tanh = kind == "GELUTanh" or getattr(activation, "approximate", "none") == "tanh"
    settings = {
        "mlp_ratio": mlp_ratio(linear.out_features, linear.in_features),
        "norm_eps": norm.eps,
        "gelu": "tanh" if is_tanh else "exact",
        "ls_init_value": None if isinstance(scale, nn.Identity) else float(scale.gamma.detach().flatten()[0]),
    }
    return block.attn.num_heads, kind == "QuickGELU", settings


def mlp_ratio(hidden: int, width: int) -> float:
    """Gives this hidden size."""
    ratio = round(hidden / width, 4)
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _first_block(transformer: Any, where: str) -> Any:
    blocks = getattr(transformer, "resblocks", None)
    if not blocks or type(blocks[0]).__name__ != "ResidualAttentionBlock":
        raise StartError(where, "its blocks must be of a known kind", type(blocks[0]).__name__ if blocks else "none")
    return blocks[0]


# ---------------------------------------------------------------------------------------------------------------------
# Image towers


def _from_vit(visual: Any, state: State, uncertainty: bool) -> tuple[VisionConfig, bool, State]:
    """open_clip's own, whose tensors have the released names; [UNC] comes after [CLS]."""
    if not hasattr(visual, "conv1") or not hasattr(visual, "class_embedding"):
        raise StartError("image tower", "must be a vision transformer", type(visual).__name__)
    if visual.attn_pool is not None or visual.pool_type != "tok":
        raise StartError("image tower", "its mean must be read from [CLS]")
    heads, quick, settings = _block_settings(_first_block(visual.transformer, "image tower"), _BLOCK, "image tower")
    width = visual.conv1.out_channels
    vision = VisionConfig(
        layers=len(visual.transformer.resblocks),
        width=width,
        head_width=width // heads,
        patch_size=_square(visual.patch_size),
        image_size=_sides(visual.image_size),
        no_ln_pre=isinstance(visual.ln_pre, nn.Identity),
        embed_unc=uncertainty,
        unc_seen=not uncertainty,
        final_norm="once",
        **settings,
    )
    tensors = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
    if visual.proj is None:
        tensors["visual.proj"] = torch.eye(width)
    return vision, quick, tensors


def _from_timm(visual: Any, state: State, uncertainty: bool) -> tuple[VisionConfig, bool, State]:
    """With attention pooling: other names, no [CLS], a bias on the patches."""
    trunk = visual.trunk
    name, is_native = type(trunk).__name__, hasattr(trunk, "embeds")
    if name not in {"VisionTransformer", "NaFlexVit"} or trunk.attn_pool is None or trunk.num_prefix_tokens:
        raise StartError("image tower", "must be timm's ViT with attention pooling (SigLIP)", name)
    pool, first, embeds = trunk.attn_pool, trunk.blocks[0], trunk.embeds if is_native else trunk.patch_embed
    unlike = [key for key, value in _NAFLEX.items() if is_native and getattr(embeds, key, value) != value]
    if unlike or type(first).__name__ != "Block":
        raise StartError("image tower", "its settings must have a counterpart", unlike or type(first).__name__)
    head = [*visual.head, trunk.head, trunk.fc_norm, pool.q_norm, pool.k_norm, trunk.norm_pre]
    head += [first.attn.q_norm, first.attn.k_norm, embeds.norm]
    further = [module for module in head if not isinstance(module, (nn.Identity, nn.Dropout))]
    if any(not isinstance(module, nn.Linear) or module.bias is not None for module in further) or len(further) > 1:
        raise StartError("image tower", "its parts must have a counterpart", further)
    positions = (embeds if is_native else trunk).pos_embed
    if pool.latent_len != 1 or pool.pos_embed is not None or positions is None:
        raise StartError("image tower", "its attention pool must have one query and positions of its own")
    heads, quick, settings = _block_settings(first, _TIMM_BLOCK, "image tower")
    width, patch_size = trunk.embed_dim, _square(embeds.patch_size)
    if is_native:
        size = [rows * patch_size for rows in positions.shape[1:3]]
        # open_clip 3 does not keep the setting; in its configurations it fits images of that size.
        whole = math.prod(side // patch_size for side in visual.image_size)
        settings["image_seq_len"] = getattr(visual, "image_seq_len", whole)
        settings["pos_embed_interp_mode"] = embeds.pos_embed_interp_mode
    else:
        size = embeds.img_size
    vision = VisionConfig(
        layers=len(trunk.blocks),
        width=width,
        head_width=width // heads,
        patch_size=patch_size,
        image_size=_sides(size),
        no_ln_pre=True,
        embed_unc=uncertainty,
        unc_seen=not uncertainty,
        pool_type="map",
        **settings,
    )
    prefix = "visual.trunk."
    timm = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    own = ("visual.transformer.", "visual.conv1.")
    tensors = {name: tensor for name, tensor in state.items() if name.startswith(own)}
    tensors["visual.positional_embedding"] = state["visual.positional_embedding"].flatten(0, -2)
    tensors["visual.proj"] = (further[0].weight.detach().float().cpu().T if further else torch.eye(width)).contiguous()
    tensors["visual.attn_pool.latent"] = timm["attn_pool.latent"][0]
    for part in ("weight", "bias"):
        tensors[f"visual.ln_post.{part}"] = timm[f"norm.{part}"]
        query_key_value = [timm[f"attn_pool.{name}.{part}"] for name in ("q", "kv")]
        tensors[f"visual.attn_pool.attn.in_proj_{part}"] = torch.cat(query_key_value)
        for old, new in _TIMM_POOL.items():
            tensors[f"visual.attn_pool.{new}.{part}"] = timm[f"attn_pool.{old}.{part}"]
    return vision, quick, tensors


def fold_pixels(tensors: State, mean: Sequence[float], std: Sequence[float], num_specials: int) -> None:
    """Adapt the patch filter to pixels normalised as by our loader (m', s'), not as in the model's training (m, s).

    (p - m) / s = ((p - m') / s') * s' / s + (m' - m) / s: a factor on the filter of each colour, and a constant, which
    is added to the position of every patch, as a bias is. The weights of interpolated positions add up to 1.
    """
    table = tensors["visual.positional_embedding"].clone()
    table[num_specials:] += tensors.pop("visual.conv1.bias", torch.zeros(()))
    old, new = ((torch.tensor(m), torch.tensor(s)) for m, s in ((mean, std), (OPENAI_MEAN, OPENAI_STD)))
    if not all(a.allclose(b) for a, b in zip(old, new, strict=True)):
        filters = tensors["visual.conv1.weight"]
        table[num_specials:] += (filters.sum((2, 3)) * ((new[0] - old[0]) / old[1])).sum(1)
        tensors["visual.conv1.weight"] = filters * (new[1] / old[1])[:, None, None]
    tensors["visual.positional_embedding"] = table


# ---------------------------------------------------------------------------------------------------------------------
# Text towers


def _text_config(module: Any, state: State, uncertainty: bool) -> tuple[TextConfig, bool]:
    if not hasattr(module, "token_embedding"):
        raise StartError("text tower", "must be open_clip's own", type(module).__name__)
    if getattr(module, "cls_emb", None) is not None:
        raise StartError("text tower", "must have no class token under a mask of its own (CoCa)")
    pool = module.pool_type if hasattr(module, "pool_type") else module.text_pool_type
    if pool not in {"argmax", "last", "eos"}:
        raise StartError("text tower", "its mean must be read from the last or [EOS] token", pool)
    heads, quick, settings = _block_settings(_first_block(module.transformer, "text tower"), _BLOCK, "text tower")
    length, width = state["text.positional_embedding"].shape
    eos = module.eos_id if hasattr(module, "eos_id") else module.text_eos_id
    projection = module.text_projection
    config = TextConfig(
        context_length=length,
        vocab_size=len(state["text.token_embedding.weight"]),
        width=width,
        heads=heads,
        layers=len(module.transformer.resblocks),
        proj_bias=isinstance(projection, nn.Linear) and projection.bias is not None,
        embed_unc=uncertainty,
        unc_seen=not uncertainty,
        log_var_source="unc",
        embed_cls=False,
        no_causal_mask=module.attn_mask is None,
        pool_type=pool,
        eos_id=int(eos) if pool == "eos" else TextConfig.eos_id,
        **settings,
    )
    return config, quick


def _text_state(state: State) -> State:
    tensors = {name: tensor for name, tensor in state.items() if name.startswith("text.")}
    if "text.text_projection.weight" in tensors and "text.text_projection.bias" not in tensors:
        tensors["text.text_projection"] = tensors.pop("text.text_projection.weight").T.contiguous()
    if not any(name.startswith("text.text_projection") for name in tensors):
        tensors["text.text_projection"] = torch.eye(state["text.positional_embedding"].shape[1])
    return tensors


# ---------------------------------------------------------------------------------------------------------------------
# Both towers


def _sides(size: Sequence[int]) -> int | tuple[int, int]:
    return size[0] if size[0] == size[1] else (size[0], size[1])


def _square(size: Sequence[int]) -> int:
    if size[0] != size[1]:
        raise StartError("image tower", "patches must be square", tuple(size))
    return size[0]


@torch.no_grad()
def start(config: ModelConfig, tensors: State) -> ProLIP:
    """In evaluation mode; [UNC] vectors, heads and position rows are new.

    Raises:
        StartError: the tensors do not match the configuration.
    """
    model = ProLIP(config)
    own = model.state_dict()
    vision, text = model.visual, model.text
    if vision.unc_embedding is not None:
        row = vision.num_specials - 1
        tensors["visual.positional_embedding"] = _with_row(
            tensors["visual.positional_embedding"], own["visual.positional_embedding"], row
        )
    if text.unc_emb is not None:
        table = tensors["text.positional_embedding"]
        tensors["text.positional_embedding"] = _with_row(table, own["text.positional_embedding"], len(table))
    new = {"visual.unc_embedding", "text.unc_emb"}
    new |= {name for name in own if "uncertainty_proj" in name}
    missing, further = set(own) - set(tensors) - new, set(tensors) - set(own)
    if missing or further:
        raise StartError(
            "weights", f"must match the towers: missing {sorted(missing)}, without counterpart {sorted(further)}"
        )
    try:
        model.load_state_dict({**own, **tensors}, strict=True)
    except RuntimeError as error:
        raise StartError("weights", error) from error
    return model.eval()


def _with_row(table: Tensor, own: Tensor, row: int) -> Tensor:
    return torch.cat([table[:row], own[row : row + 1], table[row:]])
