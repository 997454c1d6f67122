"""Writes a model's folder for transformers, with code, processors and tokenizer beside the weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.interop.tokenizer_json import json_tokenizer, sides
from prolip.interop.transformers import (
    ProLIPConfig,
    ProLIPImageProcessor,
    ProLIPModel,
    ProLIPProcessor,
    ProLIPTokenizer,
)
from prolip.interop.transformers.single_file import CODE_FILE, CODE_MODULE
from prolip.models import ProLIP
from prolip.models.hub import CARD_FILE, TOKENIZER_FILE, ModelCard
from prolip.models.official_json import to_official_json
from prolip.models.weights import CONFIG_FILE, MODEL_FILE
from prolip.pretrained.preprocess import square_image_size

TRANSFORMERS_FILES = (
    CARD_FILE,
    CODE_FILE,
    CONFIG_FILE,
    MODEL_FILE,
    "processor_config.json",
    TOKENIZER_FILE,
    "tokenizer_config.json",
)
"""The files that `save_transformers` writes."""
_SENTENCE_MODULE = "sentence_prolip"
SENTENCE_FILES = (
    *TRANSFORMERS_FILES,
    "config_sentence_transformers.json",
    "modules.json",
    f"{_SENTENCE_MODULE}.py",
)
"""The files that `save_sentence_transformers` writes."""
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


def save_transformers(model: ProLIP, tokenizer: TokenizerConfig, folder: Path, card: ModelCard) -> Sequence[str]:
    """Write `model` into `folder`, and return the names of its files.

    transformers loads it from there, with or without prolip installed.

    Raises:
        UserError: the model's images are not square.
    """
    side = square_image_size(model)
    config = ProLIPConfig(**to_official_json(model.config), pad_token_id=Tokenizer(tokenizer).pad_id)
    network = ProLIPModel(config)
    network.load_state_dict(model.state_dict())
    network.save_pretrained(folder)
    image_processor = ProLIPImageProcessor(size={"shortest_edge": side})
    ProLIPProcessor(image_processor, transformers_tokenizer(tokenizer)).save_pretrained(folder)
    _write_card(model, folder, dataclasses.replace(card, library="transformers", usage=_USAGE))
    return TRANSFORMERS_FILES


def _write_card(model: ProLIP, folder: Path, card: ModelCard) -> None:
    text = card.text(model.config, sum(parameter.numel() for parameter in model.parameters()))
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def transformers_tokenizer(config: TokenizerConfig) -> ProLIPTokenizer:
    """Return the tokenizer of these settings for transformers."""
    backend = json_tokenizer(config)
    padding_side, truncation_side = sides(config)
    ours = Tokenizer(config)
    settings: dict[str, Any] = {
        "clean": config.clean or ("lower" if config.kind == "clip" else "none"),
        "pad_id": ours.pad_id,
        "model_max_length": ours.context_length,
        "padding_side": padding_side,
        "truncation_side": truncation_side,
        "auto_map": {"AutoTokenizer": [None, f"{CODE_MODULE}.ProLIPTokenizer"]},
    }
    # transformers also finds a token that is named here within captions. So name it only if the file does so, too.
    added = backend.get_added_tokens_decoder()
    if ours.pad_id in added and config.kind == "file":
        settings["pad_token"] = added[ours.pad_id].content
    return ProLIPTokenizer(tokenizer_object=backend, bos_token=None, eos_token=None, **settings)


def save_sentence_transformers(
    model: ProLIP, tokenizer: TokenizerConfig, folder: Path, card: ModelCard
) -> Sequence[str]:
    """Write `model` into `folder` for sentence-transformers, and return the names of its files.

    transformers loads it from there, too.

    Raises:
        UserError: the model's images are not square.
    """
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
    return SENTENCE_FILES
