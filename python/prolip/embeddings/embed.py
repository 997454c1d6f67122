"""Embed all images of shards, or captions, in memory. N items, M captions, D dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prolip.data import StoreConfig, without_secrets
from prolip.errors import check
from prolip.gaussian import Gaussian
from prolip.inference.encoder import Encoded, Encoder, joined
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
        selection: path of a selection of their samples.

    Raises:
        UserError: there is no image.
        DataError: a shard is not an archive, or more than one image in a hundred is unreadable.
    """
    encoder = Encoder(model=model, keep=tuple(keep), batch_size=batch_size, on_progress=on_progress)
    shards = [shards] if isinstance(shards, str) else shards
    rows = joined(encoder.of_shards(shards, store=store, selection=selection))
    check(rows.keys, "shards", "must have an image", ", ".join(map(without_secrets, shards)))
    return rows


def embed_captions(
    model: Model,
    captions: Sequence[str],
    batch_size: int = 512,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> Gaussian:
    """Embed captions, [M, D] on the CPU."""
    found = joined(Encoder(model=model, batch_size=batch_size, on_progress=on_progress).of_captions(captions)).text
    assert found is not None
    return found.flatten()
