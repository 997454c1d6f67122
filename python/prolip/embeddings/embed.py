"""Embed all images of shards in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from prolip.data import StoreConfig
from prolip.inference.encoder import Encoded
from prolip.inference.model import Model


def embed_shards(
    model: Model,
    shards: Sequence[str],
    *,
    batch_size: int = 128,
    keep: Sequence[str] = (),
    store: StoreConfig | None = None,
    selection: str | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> Encoded:
    """Embed all images of some shards, in order, with the model's own preprocessing. Unreadable images are left out.

    Args:
        shards: paths, addresses or patterns, or one of them.
        keep: extensions of members to keep.
        selection: path of a selection of their samples.

    Raises:
        UserError: there is no image.
        DataError: a shard is not an archive, or more than one image in a hundred is unreadable.
    """
    encoder = replace(model.encoder, keep=tuple(keep), batch_size=batch_size, on_progress=on_progress)
    return encoder.embed_shards(shards, store=store, selection=selection)
