"""Tokenizers: CLIP's byte-pair encoding, or any Hugging Face tokenizer.json. This is the only place that builds them.

Shapes: N captions, L tokens (the context length).
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from prolip import _core
from prolip.data.cleaning import cleaner
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError

CLIP_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


class Tokenizer:
    """Encodes captions as rows of token ids. Immutable and thread-safe."""

    def __init__(self, config: TokenizerConfig) -> None:
        """Builds the tokenizer.

        Raises:
            UserError: a setting is wrong, or the file is not a tokenizer. The message names the field or the file, and
                the rule.
            FileNotFoundError: `clip` without a path, and open_clip is not installed.
        """
        self.config = config
        self.core = _build(config)
        """The compiled tokenizer, for `BatchLoader`."""

    def encode(self, captions: Sequence[str]) -> NDArray[np.int32]:
        """Encode captions as token ids, int32 [N, L]."""
        try:
            return self.core.encode(list(captions))
        except UnicodeEncodeError:
            return self.core.encode([_without_lone_surrogates(caption) for caption in captions])

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Decode rows of token ids, without padding and special tokens. Cleaning the captions is not undone."""
        if self.config.kind == "file":
            decoder = tokenizers.Tokenizer.from_file(str(self.config.path))
            return [decoder.decode([id for id in row if id != self.pad_id]) for row in rows]
        from open_clip.tokenizer import SimpleTokenizer  # slow to import

        simple = SimpleTokenizer(**({} if self.config.path is None else {"bpe_path": str(self.config.path)}))
        special = {simple.sot_token_id, simple.eot_token_id, self.pad_id}
        return [simple.decode([id for id in row if id not in special]).strip() for row in rows]

    @property
    def context_length(self) -> int:
        """Number of ids per caption, L."""
        return self.core.context_length

    @property
    def pad_id(self) -> int:
        """The padding id."""
        return self.core.pad_id

    @property
    def vocab_size(self) -> int:
        """The largest id plus one: the number of rows that an embedding table needs."""
        return self.core.vocab_size


def clip_merges(path: Path | None = None) -> bytes:
    """Read CLIP's merges, from `path` or from the installed open_clip, which is not imported because it loads torch.

    Raises:
        FileNotFoundError: the file does not exist, or open_clip is not installed.
    """
    if path is None:
        spec = find_spec("open_clip")
        folders = spec.submodule_search_locations if spec is not None else None
        if not folders:
            raise FileNotFoundError(
                "tokenizer.kind is 'clip': its merges come with open_clip, try pip install open_clip_torch"
            )
        path = Path(folders[0]) / CLIP_VOCABULARY
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _build(config: TokenizerConfig) -> _core.Tokenizer:
    if config.context_length < 1:
        raise UserError(f"tokenizer.context_length is {config.context_length}: it must be at least 1")
    if config.pad_id is not None and config.pad_id < 0:
        raise UserError(f"tokenizer.pad_id is {config.pad_id}: it must not be negative")
    if config.kind == "clip":
        if config.pad_id not in {None, 0}:
            raise UserError(f"tokenizer.pad_id is {config.pad_id}: with tokenizer.kind = 'clip' padding is always 0")
        how = config.clean or "lower"
        if how == "none":
            raise UserError("tokenizer.clean is 'none': with tokenizer.kind = 'clip' captions are always cleaned")
        return _core.Tokenizer.clip(clip_merges(config.path), config.context_length, cleaner(how), how)
    if config.path is None:
        raise UserError("tokenizer.path is None: with tokenizer.kind = 'file' it must name a tokenizer.json")
    if config.clean in {None, "none"}:
        return _core.Tokenizer.from_file(config.path, config.context_length, config.pad_id)
    way = str(config.clean)
    return _core.Tokenizer.from_file(config.path, config.context_length, config.pad_id, cleaner(way), way)


def _without_lone_surrogates(caption: str) -> str:
    """Join surrogate pairs to the characters they encode and replace lone surrogates by U+FFFD, as ftfy does."""
    return caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
