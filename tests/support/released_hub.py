"""The released models on a hub of folders: tiny widths in the released layout, and their tokenizers' repositories."""

import json
import math
from dataclasses import replace

import torch
from safetensors.torch import save_file
from tests.support.untrained_run import WORDS
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from prolip.models import ProLIP
from prolip.models.official_json import to_official_json
from prolip.models.released import list_models

SCALE, BIAS = 30.0, -12.0
"""What the models learned, so to say: their scale and bias are neither the initial nor the published ones."""


def siglips_tokenizer(folder):
    """Words as tokens, in the two files that SigLIP's tokenizer consists of."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {word: place for place, word in enumerate(["<unk>", "</s>", *WORDS, "cat", "dog", "car", "tabby"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    settings |= {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def small(config):
    """The same architecture in tiny widths, with the same images, captions and vocabulary."""
    return replace(
        config,
        embed_dim=32,
        vision=replace(config.vision, width=32, head_width=16, layers=1),
        text=replace(config.text, width=32, heads=2, layers=1),
    )


def released_json(config):
    """config.json with the keys of the released files, which also state some defaults."""
    written = to_official_json(config)
    vision, text = config.vision, config.text
    return {
        **written,
        "init_logit_bias": -10,
        "vision_cfg": {
            **written["vision_cfg"],
            "embed_unc": True,
            "image_size": vision.image_size,
            "init_unc_bias": -10,
            "layers": vision.layers,
            "patch_size": vision.patch_size,
            "width": vision.width,
        },
        "text_cfg": {
            **written["text_cfg"],
            "context_length": text.context_length,
            "embed_cls": True,
            "embed_unc": True,
            "heads": text.heads,
            "init_unc_bias": -10,
            "layers": text.layers,
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_bias": True,
            "vocab_size": text.vocab_size,
            "width": text.width,
        },
    }


def config_text(config):
    """config.json as huggingface_hub writes it."""
    return json.dumps(released_json(config), indent=2, sort_keys=True)


def write_released(models_folder, released, seed=0):
    """Write a released model's repository, tiny, and its tokenizer's; the network."""
    config = small(released.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ProLIP(config).eval()
        for parameter in (model.visual.uncertainty_proj.weight, model.text.text_uncertainty_projection.weight):
            torch.nn.init.normal_(parameter, std=0.5)
    model.logit_scale.data.fill_(math.log(SCALE))
    model.logit_bias.data.fill_(BIAS)
    folder = models_folder / released.repository
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(config_text(config), encoding="utf-8")
    if released.tokenizer != "clip":
        siglips_tokenizer(models_folder / released.tokenizer)
    return model


def write_all_released(models_folder):
    """Write every released model; the networks by name."""
    return {one.name: write_released(models_folder, one, seed) for seed, one in enumerate(list_models())}
