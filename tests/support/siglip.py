"""A small SigLIP model of open_clip, saved as a user has it."""

import json

import open_clip
import timm
import torch
from timm.models import VisionTransformer


@timm.models.register_model
def vit_prolip_lab(pretrained=False, **settings):
    """SigLIP's image tower in the sizes of the laboratory's recipe; `create_model` finds it by its name."""
    del pretrained
    known = {name: value for name, value in settings.items() if name in {"img_size", "global_pool", "num_classes"}}
    shape = {"img_size": 12, "patch_size": 6, "embed_dim": 16, "depth": 1, "num_heads": 2, "class_token": False}
    tower = VisionTransformer(**{**shape, "global_pool": "map", **known})
    tower.default_cfg = {}
    return tower


def architecture(tower, image_size, *, width, heads, layers, vocab, context):
    """open_clip's configuration of a SigLIP model with that image tower, of its width."""
    return {
        "embed_dim": width,
        "init_logit_bias": -10.0,
        "custom_text": True,
        "vision_cfg": {
            "image_size": image_size,
            "timm_model_name": tower,
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": context,
            "vocab_size": vocab,
            "width": width,
            "heads": heads,
            "layers": layers,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    }


def save(folder, described):
    """Saves open_clip's configuration and random weights, under the folder's name; what `--start_from` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{folder.name}.json").write_text(json.dumps(described))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.create_model(folder.name).state_dict(), folder / "weights.pt")
    return f"open_clip:{folder.name}/{folder / 'weights.pt'}"
