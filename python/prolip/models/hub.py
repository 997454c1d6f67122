"""Saves a model in the hub's layout: config.json, model.safetensors and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from prolip.models.config import ModelConfig
from prolip.models.official_json import to_official_json
from prolip.models.prolip import ProLIP
from prolip.models.weights import CONFIG_FILE, INFERENCE_FILE, MODEL_FILE
from prolip.store.atomic_writes import write_atomic

CARD_FILE = "README.md"
TOKENIZER_FILE = "tokenizer.json"
MERGES_FILES = "merges.txt*"
HUB_FILES = (CONFIG_FILE, MODEL_FILE, CARD_FILE, TOKENIZER_FILE, MERGES_FILES, INFERENCE_FILE)
"""Patterns of an exported folder's files."""
NOT_STATED = "not stated when it was saved"
_USAGE = """import prolip

model = prolip.load(...)  # this folder, or hf-hub:OWNER/NAME
images = model.encode_images(["cat.jpg"])
texts = model.encode_texts(["a cat", "an animal"])
"""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a card says besides the architecture; it says which facts are unknown."""

    name: str = "ProLIP"
    """Title."""
    licence: str = "unknown"
    """Of the weights, in the hub's spelling, such as "mit" or "cc-by-4.0"."""
    data: str = NOT_STATED
    """Training data."""
    start: str = NOT_STATED
    """What training started from."""
    tokenizer: str = NOT_STATED
    """Of the captions."""
    steps: int | None = None
    """Of the optimizer."""
    samples: int | None = None
    """Samples seen, with repetitions."""
    library: str = "prolip"
    """Loads the folder; by its name on the hub."""
    usage: str = _USAGE
    """How to load it there, in Python."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """More tables by title, such as the settings of the loss."""

    def text(self, config: ModelConfig, num_parameters: int) -> str:
        """Markdown, with the hub's header."""
        facts = {
            "architecture": describe(config, num_parameters),
            "trained on": self.data,
            "steps": NOT_STATED if self.steps is None else f"{self.steps:,}",
            "samples seen": NOT_STATED if self.samples is None else f"{self.samples:,}",
            "started from": self.start,
            "tokenizer": self.tokenizer,
            "licence": self.licence,
        }
        tables = {"Training": facts, **self.settings}
        written = json.dumps(to_official_json(config), indent=2, sort_keys=True)
        return "\n".join(
            [
                f"---\nlicense: {self.licence}\nlibrary_name: {self.library}",
                "pipeline_tag: zero-shot-image-classification",
                "tags:\n- prolip\n- probabilistic-embeddings\n- vision-language\n---\n",
                f"# {self.name}\n",
                "A probabilistic language-image model: images and captions become Gaussians. The mean says what",
                "something is, the variance how unsure the model is about it (ProLIP, arXiv:2410.18857).\n",
                f"```python\n{self.usage}```\n",
                *(_table(title, rows) for title, rows in tables.items()),
                f"## Configuration\n\n```json\n{written}\n```\n",
            ]
        )


def _table(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {key} | {str(value).replace('|', chr(92) + '|')} |" for key, value in rows.items()]
    return "\n".join([f"## {title}\n", "| | |", "|---|---|", *lines, ""])


def describe(config: ModelConfig, num_parameters: int) -> str:
    """An architecture in one line."""
    vision, text = config.vision, config.text
    size = vision.image_size if isinstance(vision.image_size, int) else "x".join(map(str, vision.image_size))
    images = f"{size} pixels in patches of {vision.patch_size}"
    if vision.image_seq_len is not None:
        images = f"up to {vision.image_seq_len} patches of {vision.patch_size} pixels at native aspect"
    return (
        f"image tower of {vision.layers} layers of {vision.width}, {images}; "
        f"text transformer of {text.layers} layers of {text.width}, {text.context_length} tokens of {text.vocab_size}; "
        f"embeddings of {config.embed_dim} dimensions; {num_parameters / 1e6:.1f} M parameters"
    )


def save_pretrained(
    model: ProLIP, folder: str | Path, *, card: ModelCard | None = None, tokenizer: Path | None = None
) -> Path:
    """Write `model` into `folder` in the hub's layout; returns the folder.

    The files are config.json, model.safetensors (float32), README.md, and tokenizer.json if there is a `tokenizer`.
    """
    folder = Path(folder)
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in model.state_dict().items()
    }
    write_atomic(folder / MODEL_FILE, save(tensors))
    config = json.dumps(to_official_json(model.config), indent=2, sort_keys=True)
    write_atomic(folder / CONFIG_FILE, config)
    text = (card or ModelCard()).text(model.config, sum(parameter.numel() for parameter in model.parameters()))
    write_atomic(folder / CARD_FILE, text)
    if tokenizer is not None:
        write_atomic(folder / TOKENIZER_FILE, tokenizer.read_bytes())
    return folder


def push_to_hub(folder: Path, repository: str, *, files: Sequence[str] = HUB_FILES, private: bool = False) -> str:
    """Upload a folder's `files` to a hub repository, created if needed; returns the commit's address.

    The hub's client uses the token stored by `hf auth login`.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        allow_patterns=list(files),
        commit_message="ProLIP model, saved by prolip export",
    )
    return str(commit)
