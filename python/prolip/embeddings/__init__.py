"""Embed images and captions, store the Gaussians, and search, rank and filter them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prolip.embeddings.config import EmbedOptions, FilterOptions, RankOptions, SearchOptions
from prolip.lazy import lazy_names

if TYPE_CHECKING:
    from prolip.embeddings.embed import (
        Embedded,
        Paired,
        embed_captions,
        embed_pairs,
        embed_shards,
        embed_texts,
    )
    from prolip.embeddings.embed_inputs import run_embed
    from prolip.embeddings.filter import run_filter
    from prolip.embeddings.rank import read_ranking, run_rank
    from prolip.embeddings.search import Hit, nearest, run_search
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
    "embed_pairs",
    "embed_shards",
    "embed_texts",
    "nearest",
    "read_ranking",
    "run_embed",
    "run_filter",
    "run_rank",
    "run_search",
]

__getattr__ = lazy_names(__name__, __file__)
