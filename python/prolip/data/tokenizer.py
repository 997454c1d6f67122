"""Tokenizers: CLIP's byte-pair encoding, or any Hugging Face tokenizer.json.

N captions, L tokens (the context length).
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from prolip import _core
from prolip.data.cleaning import cleaner
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError, check

CLIP_MERGES = Path(__file__).with_name("clip_merges.txt.gz")
"""CLIP's merges, below a header line."""
MASK = "[MASK]"
"""Stands for a masked token, if a vocabulary has it."""
CLIP_SPECIALS = ("<start_of_text>", "<end_of_text>")
_MAX_MERGES = 49_152 - 256 - 2
_WORD_END = "</w>"
_UNPRINTABLE = [*range(ord("!")), *range(ord("~") + 1, ord("¡")), ord("¬") + 1]
"""Bytes whose Latin-1 character is not visible."""


class Tokenizer:
    """Encodes captions as rows of token ids. Immutable and thread-safe."""

    def __init__(self, config: TokenizerConfig) -> None:
        """Builds the tokenizer.

        Raises:
            UserError: a setting is wrong, or the file is not a tokenizer.
            FileNotFoundError: the file does not exist.
        """
        self.config = config
        self.core = _build(config)
        """The compiled tokenizer, for `BatchLoader`."""

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[TokenizerConfig]]:
        """The files of the settings must still be there."""
        return Tokenizer, (self.config,)

    def encode(self, captions: Sequence[str]) -> NDArray[np.int32]:
        """Token ids, int32 [N, L].

        Raises:
            UserError: the captions are a text, whose letters would be taken for captions.
        """
        if isinstance(captions, str):
            raise UserError("captions", "must be a list of captions", f"{captions!r}")
        try:
            return self.core.encode(list(captions))
        except UnicodeEncodeError:
            return self.core.encode([_without_lone_surrogates(caption) for caption in captions])

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Without padding and special tokens."""
        if self.config.kind == "file":
            decoder = tokenizers.Tokenizer.from_file(str(self.config.path))
            return [decoder.decode([id for id in row if id != self.pad_id]) for row in rows]
        symbols, _ = clip_vocabulary(self.config.path)
        shown = {id: symbol for id, symbol in enumerate(symbols[: -len(CLIP_SPECIALS)]) if id != self.pad_id}
        codes = {letter: code for code, letter in zip(_byte_codes(), byte_letters(), strict=True)}
        codes[" "] = ord(" ")
        texts = ["".join(shown.get(id, "") for id in row).replace(_WORD_END, " ") for row in rows]
        return [bytes(codes[letter] for letter in text).decode(errors="replace").strip() for text in texts]

    def unknown_words(self, texts: Sequence[str]) -> list[str]:
        """Words that a vocabulary of one's own captions spells. Others know all."""
        own = tokenizers.Tokenizer.from_file(str(self.config.path)) if self.config.kind == "file" else None
        if own is None or own.token_to_id(MASK) is None:
            return []
        found = []
        for text in texts:
            encoding = own.encode(text)
            for word, count in Counter(encoding.word_ids).items():
                if count > 1 and word is not None and (place := encoding.word_to_chars(word)) is not None:
                    found.append(text[slice(*place)].strip())
        return list(dict.fromkeys(found))

    @property
    def context_length(self) -> int:
        """L."""
        return self.core.context_length

    @property
    def pad_id(self) -> int:
        """The padding id."""
        return self.core.pad_id

    @property
    def vocab_size(self) -> int:
        """The maximum id plus one."""
        return self.core.vocab_size


def clip_merges(path: Path | None = None) -> bytes:
    """From `path`; None for CLIP's own."""
    path = path or CLIP_MERGES
    data = path.read_bytes()
    try:
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"tokenizer {path}", f"must be an intact gzip file ({error})") from error


def clip_vocabulary(path: Path | None = None) -> tuple[list[str], list[tuple[str, str]]]:
    """Symbols, in the order of their ids, and merges."""
    lines = clip_merges(path).decode("utf-8").splitlines()[1 : 1 + _MAX_MERGES]
    merges = [(first, second) for first, second in (line.split() for line in lines if line.strip())]
    letters = byte_letters()
    merged = [first + second for first, second in merges]
    return [*letters, *(letter + _WORD_END for letter in letters), *merged, *CLIP_SPECIALS], merges


def byte_letters() -> list[str]:
    """CLIP's symbol for each byte, in the order of the ids."""
    printable = 256 - len(_UNPRINTABLE)
    return [chr(code) for code in _byte_codes()[:printable]] + [chr(256 + place) for place in range(len(_UNPRINTABLE))]


def _byte_codes() -> list[int]:
    return [code for code in range(256) if code not in _UNPRINTABLE] + _UNPRINTABLE


def _build(config: TokenizerConfig) -> _core.Tokenizer:
    check(config.context_length >= 1, "tokenizer.context_length", "must be at least 1", config.context_length)
    if config.pad_id is not None and config.pad_id < 0:
        raise UserError("tokenizer.pad_id", "must be at least 0", config.pad_id)
    if config.kind == "clip":
        check(config.pad_id in {None, 0}, "tokenizer.pad_id", "must be 0 with tokenizer.kind = 'clip'", config.pad_id)
        how = config.clean or "lower"
        check(how != "none", "tokenizer.clean", "must clean captions with tokenizer.kind = 'clip'", "none")
        return _core.Tokenizer.clip(clip_merges(config.path), config.context_length, cleaner(how), how)
    if config.path is None:
        raise UserError("tokenizer.path", "must name a tokenizer.json with tokenizer.kind = 'file'")
    if config.clean in {None, "none"}:
        return _core.Tokenizer.from_file(config.path, config.context_length, config.pad_id)
    way = str(config.clean)
    return _core.Tokenizer.from_file(config.path, config.context_length, config.pad_id, cleaner(way), way)


def _without_lone_surrogates(caption: str) -> str:
    """Join surrogate pairs, and replace lone surrogates by U+FFFD, as ftfy does."""
    return caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
