from .config import (
    EmbedOptions as EmbedOptions,
    FilterOptions as FilterOptions,
    RankOptions as RankOptions,
    SearchOptions as SearchOptions,
)
from .embed import (
    Embedded as Embedded,
    Paired as Paired,
    embed_captions as embed_captions,
    embed_pairs as embed_pairs,
    embed_shards as embed_shards,
    embed_texts as embed_texts,
)
from .embed_inputs import run_embed as run_embed
from .filter import run_filter as run_filter
from .rank import read_ranking as read_ranking, run_rank as run_rank
from .search import Hit as Hit, nearest as nearest, run_search as run_search
from .storage import Manifest as Manifest, Part as Part, complete_parts as complete_parts
