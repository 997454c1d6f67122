"""Embed images and captions, store the Gaussians, and search, rank and filter them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prolip.embeddings.config import EmbedOptions, FilterOptions, RankOptions, SearchOptions

if TYPE_CHECKING:
    from prolip.embeddings.embed import (
        Embedded,
        Paired,
        embed_captions,
        embed_images,
        embed_pairs,
        embed_pixels,
        embed_shards,
        embed_texts,
    )
    from prolip.embeddings.embed_parts import run_embed
    from prolip.embeddings.filter import run_filter
    from prolip.embeddings.queries import run_search
    from prolip.embeddings.rank import read_ranking, run_rank
    from prolip.embeddings.search import Hit, nearest
    from prolip.embeddings.storage import Manifest, Part, complete_parts

__all__ = [
    "EmbedOptions",
    "Embedded",
    "FilterOptions",
    "Hit",
    "Manifest",
    "Paired",
    "Part",
    "RankOptions",
    "SearchOptions",
    "complete_parts",
    "embed_captions",
    "embed_images",
    "embed_pairs",
    "embed_pixels",
    "embed_shards",
    "embed_texts",
    "nearest",
    "read_ranking",
    "run_embed",
    "run_filter",
    "run_rank",
    "run_search",
]

_LAZY = {
    "Embedded": "embed",
    "Paired": "embed",
    "embed_captions": "embed",
    "embed_images": "embed",
    "embed_pairs": "embed",
    "embed_pixels": "embed",
    "embed_shards": "embed",
    "embed_texts": "embed",
    "run_embed": "embed_parts",
    "run_filter": "filter",
    "run_search": "queries",
    "read_ranking": "rank",
    "run_rank": "rank",
    "Hit": "search",
    "nearest": "search",
    "Manifest": "storage",
    "Part": "storage",
    "complete_parts": "storage",
}


def __getattr__(name: str) -> Any:
    """Import a function, and torch with it, when it is first used, so that the options stay light."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
