"""Read and write re-weighted prompts as a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prolip.errors import UserError
from prolip.files import atomic_file
from prolip.metrics.bprw import PromptWeights


def save_prompt_weights(found: PromptWeights, path: Path, notes: Mapping[str, object] | None = None) -> None:
    """Write weights to a safetensors file, with `notes` (settings, class names, templates) as JSON in its header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in found._asdict().items()}
    header = {name: json.dumps(note, ensure_ascii=False) for name, note in (notes or {}).items()}
    with atomic_file(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_file(tensors, temporary, header)


def load_prompt_weights(path: Path) -> PromptWeights:
    """Read the weights that `save_prompt_weights` wrote, to the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file does not hold prompt weights.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(PromptWeights._fields):
                raise UserError(f"{path} holds no prompt weights, but {', '.join(sorted(file.keys()))}")
            return PromptWeights(**{name: file.get_tensor(name) for name in PromptWeights._fields})
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from error
