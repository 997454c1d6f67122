"""Convert any tokenizer of prolip to a tokenizer.json that other libraries read."""

from __future__ import annotations

import json
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from prolip.data import tokenizer as prolip_tokenizer
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import CLIP_SPECIALS, clip_vocabulary

Side = Literal["left", "right"]
_WORD_END = "</w>"
_CLIP_WORDS = r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

_SPACES = (normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip())
_CLEANING: dict[str, tuple[normalizers.Normalizer, ...]] = {
    "none": (),
    "whitespace": _SPACES,
    "lower": (*_SPACES, normalizers.Lowercase()),
    # string.punctuation, of which an underscore becomes a space.
    "canonicalize": (
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex(r"[!-/:-@\[-^`{-~]"), ""),
        normalizers.Lowercase(),
        *_SPACES,
    ),
}
"""By name, without ftfy and HTML entities."""


def json_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """For the `tokenizers` package, without padding and truncation.

    It expects captions that are already cleaned (`config.clean`).
    """
    if config.kind == "clip":
        return _clip(config)
    tokenizer = Tokenizer.from_file(str(config.path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def complete_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """As `json_tokenizer`, but it also cleans, cuts and pads captions: `encode_batch` returns the loader's rows.

    It neither repairs broken Unicode like ftfy, nor replaces HTML entities.
    """
    ours = prolip_tokenizer.Tokenizer(config)
    tokenizer = json_tokenizer(config)
    clean = config.clean or ("lower" if config.kind == "clip" else "none")
    steps = [*_CLEANING[clean], *([] if tokenizer.normalizer is None else [tokenizer.normalizer])]
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    padding, truncation = sides(config)
    tokenizer.enable_truncation(ours.context_length, direction=truncation)
    pad_token = tokenizer.id_to_token(ours.pad_id)
    tokenizer.enable_padding(direction=padding, pad_id=ours.pad_id, pad_token=pad_token, length=ours.context_length)
    return tokenizer


def _clip(config: TokenizerConfig) -> Tokenizer:
    symbols, merges = clip_vocabulary(config.path)
    vocabulary = {symbol: id for id, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=_WORD_END))
    tokenizer.add_special_tokens(list(CLIP_SPECIALS))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    start, end = CLIP_SPECIALS
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(token, vocabulary[token]) for token in CLIP_SPECIALS]
    )
    return tokenizer


def sides(config: TokenizerConfig) -> tuple[Side, Side]:
    """On which the tokenizer pads and cuts, from its file or the tokenizer_config.json beside it."""
    if config.kind == "clip" or config.path is None:
        return "right", "right"
    tokenizer = Tokenizer.from_file(str(config.path))
    beside = config.path.with_name("tokenizer_config.json")
    settings = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    padding = settings.get("padding_side") or (tokenizer.padding or {}).get("direction")
    truncation = settings.get("truncation_side") or (tokenizer.truncation or {}).get("direction")
    return "left" if padding == "left" else "right", "left" if truncation == "left" else "right"
