"""Writes a model's folder for transformers: code, processors, tokenizer and weights."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.errors import check
from prolip.interop.tokenizer_json import json_tokenizer, sides
from prolip.interop.transformers import (
    ProLIPConfig,
    ProLIPImageProcessor,
    ProLIPModel,
    ProLIPProcessor,
    ProLIPTokenizer,
)
from prolip.models import ProLIP
from prolip.models.hub import CARD_FILE, ModelCard
from prolip.models.official_json import to_official_json

_SENTENCE_MODULE = "sentence_prolip"
_USAGE = """from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(..., trust_remote_code=True)  # this folder, or OWNER/NAME
processor = AutoProcessor.from_pretrained(..., trust_remote_code=True)
output = model(**processor(images=image, text=["a cat", "a dog"], return_tensors="pt"))
output.logits_per_image.softmax(-1), output.image_mean, output.image_log_var
"""
_SENTENCE_USAGE = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer(..., trust_remote_code=True)  # this folder, or OWNER/NAME
images = model.encode_document(["cat.jpg", "dog.jpg"])  # [mean, total variance]
texts = model.encode_query(["a cat"])  # [mean, -1/2]
model.similarity(texts, images)
"""
_IMPORT = re.compile(r"^from (prolip(?:\.\w+)*)\.(\w+) import", re.M)


def save_transformers(model: ProLIP, tokenizer: TokenizerConfig, folder: Path, card: ModelCard) -> None:
    """transformers loads it from `folder` with or without prolip installed."""
    vision = model.config.vision
    if vision.image_seq_len is None:
        height, width = vision.height_and_width
        check(height == width, "vision.image_size", "images must be square", vision.image_size)
        images = ProLIPImageProcessor(size={"shortest_edge": height})
    else:
        images = ProLIPImageProcessor(patch_size=vision.patch_size, max_num_patches=vision.image_seq_len)
    images.resample = int(Image.Resampling[vision.interpolation.upper()])
    config = ProLIPConfig(**to_official_json(model.config), pad_token_id=Tokenizer(tokenizer).pad_id)
    config.auto_map = {
        "AutoConfig": "modeling.ProLIPConfig",
        "AutoModel": "modeling.ProLIPModel",
        "AutoModelForZeroShotImageClassification": "modeling.ProLIPModel",
    }
    network = ProLIPModel(config)
    network.load_state_dict(model.state_dict())
    network.save_pretrained(folder)
    images.auto_map = {"AutoImageProcessor": "processing.ProLIPImageProcessor"}
    processor = ProLIPProcessor(images, transformers_tokenizer(tokenizer))
    processor.auto_map = {"AutoProcessor": "processing.ProLIPProcessor"}
    processor.save_pretrained(folder)
    _write_code(folder)
    _write_card(model, folder, dataclasses.replace(card, library="transformers", usage=_USAGE))


def _write_code(folder: Path) -> None:
    """Copy the modules of prolip that the model needs into one folder, with relative imports."""
    waiting = {f"{__package__}.modeling", f"{__package__}.processing"}
    while waiting:
        module = waiting.pop()
        source = import_module(module).__file__
        assert source is not None
        text = Path(source).read_text(encoding="utf-8")
        file = folder / f"{module.rpartition('.')[2]}.py"
        if not file.exists():
            file.write_text(_IMPORT.sub(r"from .\2 import", text), encoding="utf-8")
            waiting |= {f"{room}.{name}" for room, name in _IMPORT.findall(text)}


def _write_card(model: ProLIP, folder: Path, card: ModelCard) -> None:
    text = card.text(model.config, sum(parameter.numel() for parameter in model.parameters()))
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def transformers_tokenizer(config: TokenizerConfig) -> ProLIPTokenizer:
    """For transformers."""
    backend = json_tokenizer(config)
    padding_side, truncation_side = sides(config)
    ours = Tokenizer(config)
    settings: dict[str, Any] = {
        "clean": config.clean or ("lower" if config.kind == "clip" else "none"),
        "pad_id": ours.pad_id,
        "model_max_length": ours.context_length,
        "padding_side": padding_side,
        "truncation_side": truncation_side,
        "auto_map": {"AutoTokenizer": [None, "processing.ProLIPTokenizer"]},
    }
    # transformers also finds a token that is named here within captions, so only one that the file names.
    added = backend.get_added_tokens_decoder()
    if ours.pad_id in added and config.kind == "file":
        settings["pad_token"] = added[ours.pad_id].content
    return ProLIPTokenizer(tokenizer_object=backend, bos_token=None, eos_token=None, **settings)


def save_sentence_transformers(model: ProLIP, tokenizer: TokenizerConfig, folder: Path, card: ModelCard) -> None:
    """Also for transformers itself."""
    save_transformers(model, tokenizer, folder, card)
    _write_card(model, folder, dataclasses.replace(card, library="sentence-transformers", usage=_SENTENCE_USAGE))
    module = {"idx": 0, "name": "0", "path": "", "type": f"{_SENTENCE_MODULE}.ProLIPEncoder"}
    settings = {
        "model_type": "SentenceTransformer",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        # For vector databases; the model's own `similarity` is CSD (sentence_module.py).
        "similarity_fn_name": "dot",
    }
    (folder / "modules.json").write_text(json.dumps([module], indent=2), encoding="utf-8")
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    code = Path(__file__).with_name("sentence_module.py").read_text(encoding="utf-8")
    (folder / f"{_SENTENCE_MODULE}.py").write_text(code, encoding="utf-8")
