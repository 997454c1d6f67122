"""Cleans captions before they are tokenized, as open_clip does."""

from __future__ import annotations

import html
import string
from collections.abc import Callable

import ftfy


def clean_lower(captions: list[str]) -> list[str]:
    """As open_clip's CLIP tokenizer: ftfy, HTML entities, white space, lower case.

    The loader calls this once per batch, for captions that Rust cannot prove clean.
    """
    return [caption.lower() for caption in clean_whitespace(captions)]


def clean_whitespace(captions: list[str]) -> list[str]:
    """With ftfy, HTML entities, white space."""
    return [" ".join(_fixed(caption).split()) for caption in captions]


def clean_canonicalize(captions: list[str]) -> list[str]:
    """As SigLIP's training: ftfy, HTML entities, no ASCII punctuation, lower case."""
    return [" ".join(_fixed(caption).translate(_NO_PUNCTUATION).lower().split()) for caption in captions]


_NO_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def _fixed(caption: str) -> str:
    return html.unescape(html.unescape(ftfy.fix_text(caption))).strip()


def cleaner(how: str) -> Callable[[list[str]], list[str]]:
    """By name: lower, whitespace or canonicalize."""
    return {"lower": clean_lower, "whitespace": clean_whitespace, "canonicalize": clean_canonicalize}[how]
