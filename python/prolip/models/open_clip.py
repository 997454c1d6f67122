"""Converts open_clip's CLIP and SigLIP models to ProLIP, as a start for training.

The converted towers compute the same embeddings as open_clip's; these are the means. The new [UNC] parts are
initialised as in any new model (specification §2.5), and no other token attends to [UNC]. All settings are read from
the modules that open_clip built, so activations, heads and epsilons are right whatever the model's name suggests.

W width, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prolip.errors import UserError
from prolip.models.config import START_WITHOUT_BIAS, Gelu, ModelConfig, TextConfig, VisionConfig
from prolip.models.prolip import ProLIP
from prolip.normalization import OPENAI_MEAN, OPENAI_STD

State = dict[str, Tensor]

_TEXT_PARTS = ("positional_embedding", "token_embedding", "transformer", "ln_final", "text_projection")
_TIMM_NAMES = {
    "norm1": "ln_1",
    "attn.qkv": "attn.in_proj",
    "attn.proj": "attn.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "ls1": "ls_1",
    "ls2": "ls_2",
}


class StartError(UserError):
    """An open_clip model that cannot be converted; the message names the part."""


@dataclass(frozen=True)
class _Tower:
    """Settings of a tower that are read from its modules, because its tensors do not show them."""

    heads: int
    mlp_ratio: float
    norm_eps: float
    activation: Gelu | None
    """None for the quick GELU."""
    layer_scale: float | None


def start_from(model: nn.Module, *, uncertainty: bool = True) -> ProLIP:
    """Convert an open_clip model to ProLIP, on the CPU, in single precision.

    CLIP models have no similarity bias: they get the initial values of the released loader, bias -10 and scale 10.
    Images are normalised as by our loader: if the model was trained with another mean and std, its weights are adapted.

    Args:
        model: an open_clip CLIP or CustomTextCLIP. Its image tower is open_clip's ViT with [CLS], or timm's ViT with
            attention pooling (SigLIP). Its text tower is open_clip's.
        uncertainty: add the [UNC] parts. Without them images and texts are points.

    Raises:
        StartError: a part of the model is not supported.
    """
    state = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in model.state_dict().items()}
    text_module = getattr(model, "text", model)
    if text_module is model:  # CLIP has the parts of its text tower at the top level
        state = {f"text.{name}" if name.startswith(_TEXT_PARTS) else name: tensor for name, tensor in state.items()}
    text, text_activation = _text_config(text_module, state, uncertainty)
    visual: Any = model.visual
    timm = hasattr(visual, "trunk")
    vision, activation, tensors = (_from_timm if timm else _from_vit)(visual, state, uncertainty)
    tensors |= _text_state(state)
    _fold_pixels(tensors, visual, len(tensors["visual.positional_embedding"]) - vision.num_patches)
    if (activation is None) != (text_activation is None):
        raise StartError("one tower uses the quick GELU and the other does not")
    start = {name: torch.tensor(value) for name, value in START_WITHOUT_BIAS.items()}
    tensors |= {name: (state if "logit_bias" in state else start)[name].reshape(()) for name in start}
    config = ModelConfig(
        embed_dim=tensors["visual.proj"].shape[1],
        vision=vision,
        text=text,
        quick_gelu=activation is None,
        init_logit_bias=float(tensors["logit_bias"]),
    )
    started = ProLIP(config)
    _load_beside_new_parts(started, tensors)
    return started.eval()


# ---------------------------------------------------------------------------------------------------------------------
# Image towers


def _from_vit(visual: Any, state: State, uncertainty: bool) -> tuple[VisionConfig, Gelu | None, State]:
    """Convert open_clip's own vision transformer, whose tensors have the released names; [UNC] comes after [CLS]."""
    if not hasattr(visual, "conv1") or not hasattr(visual, "class_embedding"):
        raise StartError(f"the image tower is a {type(visual).__name__}: only vision transformers can be converted")
    if visual.attn_pool is not None or visual.pool_type != "tok":
        raise StartError("the image tower's mean is not read from [CLS]")
    tower = _tower(visual.transformer, "image tower")
    size, patch = tuple(visual.image_size), tuple(visual.patch_size)
    vision = VisionConfig(
        layers=len(visual.transformer.resblocks),
        width=visual.conv1.out_channels,
        head_width=visual.conv1.out_channels // tower.heads,
        mlp_ratio=tower.mlp_ratio,
        patch_size=_square(patch, "patches"),
        image_size=size[0] if size[0] == size[1] else (size[0], size[1]),
        ls_init_value=tower.layer_scale,
        no_ln_pre=isinstance(visual.ln_pre, nn.Identity),
        norm_eps=tower.norm_eps,
        embed_unc=uncertainty,
        unc_seen=not uncertainty,
        final_norm="once",
        gelu=tower.activation or "exact",
    )
    tensors = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
    if visual.proj is None:
        tensors["visual.proj"] = torch.eye(vision.width)
    return vision, tower.activation, tensors


def _from_timm(visual: Any, state: State, uncertainty: bool) -> tuple[VisionConfig, Gelu | None, State]:
    """Convert timm's vision transformer with attention pooling: other names, no [CLS], a bias on the patches."""
    trunk = visual.trunk
    name = type(trunk).__name__
    if name != "VisionTransformer" or trunk.attn_pool is None or trunk.cls_token is not None:
        raise StartError(
            f"the image tower is timm's {name}: only its ViT with attention pooling (SigLIP) can be converted"
        )
    plain = (nn.Identity, nn.Dropout)
    head = [*visual.head, trunk.head, trunk.fc_norm, trunk.attn_pool.q_norm, trunk.attn_pool.k_norm, trunk.norm_pre]
    linear = [module for module in head if isinstance(module, nn.Linear)]
    odd = [module for module in head if not isinstance(module, (*plain, nn.Linear))]
    if odd or len(linear) > 1 or any(module.bias is not None for module in linear):
        raise StartError(f"the image tower's head has parts without a counterpart: {odd or linear}")
    if trunk.attn_pool.latent_len != 1 or trunk.attn_pool.pos_embed is not None or trunk.pos_embed is None:
        raise StartError("the image tower's attention pool has several queries or positions, or there are no positions")
    tower = _timm_tower(trunk)
    width = trunk.embed_dim
    grid, patch = tuple(trunk.patch_embed.grid_size), _square(tuple(trunk.patch_embed.patch_size), "patches")
    height, columns = trunk.patch_embed.img_size
    vision = VisionConfig(
        layers=len(trunk.blocks),
        width=width,
        head_width=width // tower.heads,
        mlp_ratio=tower.mlp_ratio,
        patch_size=patch,
        image_size=height if height == columns else (height, columns),
        ls_init_value=tower.layer_scale,
        no_ln_pre=True,
        norm_eps=tower.norm_eps,
        embed_unc=uncertainty,
        unc_seen=not uncertainty,
        pool_type="map",
        gelu=tower.activation or "exact",
    )
    assert vision.grid == grid
    pooled, prefix = "visual.attn_pool.", "visual.trunk."
    trunk_state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    tensors = {f"visual.transformer.{new}": tensor for new, tensor in _renamed_blocks(trunk_state).items()}
    tensors |= {f"visual.ln_post.{part}": trunk_state[f"norm.{part}"] for part in ("weight", "bias")}
    tensors["visual.conv1.weight"] = trunk_state["patch_embed.proj.weight"]
    tensors["visual.positional_embedding"] = trunk_state["pos_embed"][0].clone()
    if "patch_embed.proj.bias" in trunk_state:  # added to every patch, like its position
        tensors["visual.positional_embedding"] += trunk_state["patch_embed.proj.bias"]
    tensors["visual.proj"] = linear[0].weight.detach().float().cpu().T.contiguous() if linear else torch.eye(width)
    tensors[f"{pooled}latent"] = trunk_state["attn_pool.latent"][0]
    for part in ("weight", "bias"):
        query_key_value = [trunk_state[f"attn_pool.{name}.{part}"] for name in ("q", "kv")]
        tensors[f"{pooled}attn.in_proj_{part}"] = torch.cat(query_key_value)
        tensors[f"{pooled}attn.out_proj.{part}"] = trunk_state[f"attn_pool.proj.{part}"]
        tensors[f"{pooled}norm.{part}"] = trunk_state[f"attn_pool.norm.{part}"]
        tensors[f"{pooled}mlp.c_fc.{part}"] = trunk_state[f"attn_pool.mlp.fc1.{part}"]
        tensors[f"{pooled}mlp.c_proj.{part}"] = trunk_state[f"attn_pool.mlp.fc2.{part}"]
    return vision, tower.activation, tensors


def _renamed_blocks(trunk: State) -> State:
    """Rename the tensors of timm's blocks to the released names."""
    renamed: State = {}
    for name, tensor in trunk.items():
        if not name.startswith("blocks."):
            continue
        _, number, rest = name.split(".", 2)
        module, part = rest.rsplit(".", 1)
        if module not in _TIMM_NAMES:
            raise StartError(f"the image tower has a part without a counterpart: {name}")
        new = _TIMM_NAMES[module]
        joint = "_" if new == "attn.in_proj" else "."
        renamed[f"resblocks.{number}.{new}{joint}{part}"] = tensor
    return renamed


def _fold_pixels(tensors: State, visual: Any, num_specials: int) -> None:
    """Adapt the patch filter to pixels normalised as by our loader (m', s'), not as in the model's training (m, s).

    (p - m) / s = ((p - m') / s') * s' / s + (m' - m) / s: a factor on the filter of each colour, and a constant, which
    goes into the position of every patch.
    """
    preprocess = getattr(visual, "preprocess_cfg", None) or {}
    mean = torch.tensor(preprocess.get("mean") or getattr(visual, "image_mean", None) or OPENAI_MEAN)
    std = torch.tensor(preprocess.get("std") or getattr(visual, "image_std", None) or OPENAI_STD)
    loader_mean, loader_std = torch.tensor(OPENAI_MEAN), torch.tensor(OPENAI_STD)
    if mean.allclose(loader_mean) and std.allclose(loader_std):
        return
    filters = tensors["visual.conv1.weight"]
    constant = (filters.sum((2, 3)) * ((loader_mean - mean) / std)).sum(1)
    tensors["visual.conv1.weight"] = filters * (loader_std / std)[:, None, None]
    table = tensors["visual.positional_embedding"].clone()
    table[num_specials:] += constant
    tensors["visual.positional_embedding"] = table


# ---------------------------------------------------------------------------------------------------------------------
# Text towers


def _text_config(module: Any, state: State, uncertainty: bool) -> tuple[TextConfig, Gelu | None]:
    if not hasattr(module, "token_embedding"):
        raise StartError(f"the text tower is a {type(module).__name__}: only open_clip's own can be converted")
    if getattr(module, "cls_emb", None) is not None:
        raise StartError("the text tower has a class token under a mask of its own (CoCa)")
    pool = module.pool_type if hasattr(module, "pool_type") else module.text_pool_type
    if pool not in {"argmax", "last", "eos"}:
        raise StartError(f"the text tower's mean is read from {pool!r}")
    tower = _tower(module.transformer, "text tower")
    length, width = state["text.positional_embedding"].shape
    eos = module.eos_id if hasattr(module, "eos_id") else module.text_eos_id
    projection = module.text_projection
    return (
        TextConfig(
            context_length=length,
            vocab_size=len(state["text.token_embedding.weight"]),
            width=width,
            heads=tower.heads,
            layers=len(module.transformer.resblocks),
            mlp_ratio=tower.mlp_ratio,
            ls_init_value=tower.layer_scale,
            norm_eps=tower.norm_eps,
            proj_bias=isinstance(projection, nn.Linear) and projection.bias is not None,
            embed_unc=uncertainty,
            unc_seen=not uncertainty,
            log_var_source="unc",
            embed_cls=False,
            no_causal_mask=module.attn_mask is None,
            pool_type=pool,
            eos_id=int(eos) if pool == "eos" else TextConfig.eos_id,
            gelu=tower.activation or "exact",
        ),
        tower.activation,
    )


def _text_state(state: State) -> State:
    tensors = {name: tensor for name, tensor in state.items() if name.startswith("text.")}
    if "text.text_projection.weight" in tensors and "text.text_projection.bias" not in tensors:
        tensors["text.text_projection"] = tensors.pop("text.text_projection.weight").T.contiguous()
    if not any(name.startswith("text.text_projection") for name in tensors):
        tensors["text.text_projection"] = torch.eye(state["text.positional_embedding"].shape[1])
    return tensors


# ---------------------------------------------------------------------------------------------------------------------
# Both towers


def _tower(transformer: Any, where: str) -> _Tower:
    """Read the settings of open_clip's transformer."""
    blocks = getattr(transformer, "resblocks", None)
    if not blocks or type(blocks[0]).__name__ != "ResidualAttentionBlock":
        raise StartError(f"the {where} has blocks of another kind: {type(blocks[0]).__name__ if blocks else 'none'}")
    first = blocks[0]
    return _Tower(
        heads=first.attn.num_heads,
        mlp_ratio=_ratio(first.mlp.c_fc),
        norm_eps=first.ln_1.eps,
        activation=_activation(first.mlp.gelu, where),
        layer_scale=None if isinstance(first.ls_1, nn.Identity) else float(first.ls_1.gamma.detach().flatten()[0]),
    )


def _timm_tower(trunk: Any) -> _Tower:
    """Read the settings of timm's transformer."""
    first = trunk.blocks[0]
    plain = (nn.Identity, nn.Dropout)
    if not all(isinstance(part, plain) for part in (first.attn.q_norm, first.attn.k_norm, trunk.patch_embed.norm)):
        raise StartError("the image tower has norms within its attention or its patches")
    return _Tower(
        heads=first.attn.num_heads,
        mlp_ratio=_ratio(first.mlp.fc1),
        norm_eps=first.norm1.eps,
        activation=_activation(first.mlp.act, "image tower"),
        layer_scale=None if isinstance(first.ls1, nn.Identity) else float(first.ls1.gamma.detach()[0]),
    )


def _ratio(first: nn.Linear) -> float:
    """Return an MLP ratio for which int(ratio * width) is the hidden size."""
    hidden, width = first.out_features, first.in_features
    ratio = round(hidden / width, 4)
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _activation(module: nn.Module, where: str) -> Gelu | None:
    name = type(module).__name__
    if name == "QuickGELU":
        return None
    if name not in {"GELU", "GELUTanh"}:
        raise StartError(f"the {where}'s activation is {name}")
    return "tanh" if name == "GELUTanh" or getattr(module, "approximate", "none") == "tanh" else "exact"


def _square(size: tuple[int, ...], what: str) -> int:
    if size[0] != size[1]:
        raise StartError(f"{what} of {size} are not square")
    return size[0]


@torch.no_grad()
def _load_beside_new_parts(model: ProLIP, tensors: State) -> None:
    """Copy `tensors` into `model`. The [UNC] parts (vectors, heads, position rows) keep their initial values."""
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
            f"the towers' parts do not match: missing {sorted(missing)}, without counterpart {sorted(further)}"
        )
    model.load_state_dict({**own, **tensors}, strict=True)


def _with_row(table: Tensor, own: Tensor, row: int) -> Tensor:
    """Insert the model's own row into `table`."""
    return torch.cat([table[:row], own[row : row + 1], table[row:]])
