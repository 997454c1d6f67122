from .config import (
    CopyOptions as CopyOptions,
    EmbedOptions as EmbedOptions,
    SearchOptions as SearchOptions,
    SelectOptions as SelectOptions,
)
from .copy_samples import run_copy as run_copy
from .embed import embed_shards as embed_shards, run_embed as run_embed
from .search import Hit as Hit, nearest as nearest, run_search as run_search
from .select import run_select as run_select
from .storage import Manifest as Manifest, Part as Part, complete_parts as complete_parts
