"""A small SigLIP model of open_clip, trained for a while by its own loss on our images and saved as a user has it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.loss import SigLipLoss
from timm.models import VisionTransformer

from prolip.data import BatchLoader
from prolip.data.device import device_batches
from prolip.train.config import load_config

CPU = torch.device("cpu")


@timm.models.register_model
def vit_prolip_lab(pretrained: bool = False, **settings: Any) -> VisionTransformer:
    """SigLIP's image tower in the sizes of the laboratory's recipe; `create_model` finds it by its name."""
    del pretrained
    known = {name: value for name, value in settings.items() if name in {"img_size", "global_pool", "num_classes"}}
    shape = {"img_size": 12, "patch_size": 6, "embed_dim": 16, "depth": 1, "num_heads": 2, "class_token": False}
    tower = VisionTransformer(**{**shape, "global_pool": "map", **known})
    tower.default_cfg = {}
    return tower


def architecture(tower: str, image_size: int, *, width: int, heads: int, layers: int, vocab: int, context: int) -> Any:
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


def pretrain(folder: Path, described: dict[str, Any], words: list[str], steps: int, *, lr: float = 1e-3) -> str:
    """Trains on the whole images and the first captions of a recipe's data; what `prolip train --start_from` takes.

    Args:
        folder: where the configuration and the weights go; its name is that of the architecture.
        described: open_clip's configuration.
        words: recipe and flags, whose data is used.
        steps: of the recipe's batch size.
        lr: of AdamW, after a tenth of the steps, and then to 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{folder.name}.json").write_text(json.dumps(described))
    open_clip.add_model_config(folder)
    config = load_config(words)
    data = dataclasses.replace(config.loader(1), mask=None, captions=config.data.captions[:1])
    torch.manual_seed(config.seed)
    model = open_clip.create_model(folder.name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1, cycle_momentum=False)
    loss = SigLipLoss()
    with BatchLoader(data) as loader:
        for _, batch in zip(range(steps), device_batches(loader, CPU, dtype=torch.float32), strict=False):
            optimizer.zero_grad()
            image = model.encode_image(batch.images, normalize=True)
            text = model.encode_text(batch.token_ids[0], normalize=True)
            loss(image, text, model.logit_scale.exp(), model.logit_bias).backward()
            optimizer.step()
            rate.step()
    torch.save(model.state_dict(), folder / "weights.pt")
    return f"open_clip:{folder.name}/{folder / 'weights.pt'}"
