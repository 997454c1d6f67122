"""Vectors for a vector database: their inner products rank items by the sampled distance (CSD).

A stored item is [mean', total_var'], a query is [mean, -1/2]. Their product is the score of `prolip search`. Means have
unit length, so it equals 1 + total_var / 2 - CSD / 2.

N items, Q queries, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from prolip.embeddings.config import Kind
from prolip.embeddings.storage import ROWS, Floats, complete_parts
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.store.folder import Folder

LENGTH_TOLERANCE = 1e-3
"""Of a mean's length from 1, at most. Rounding to half precision stays below 5e-4."""


class VectorBlock(NamedTuple):
    """Consecutive rows, with their names."""

    keys: list[str]
    """N: of samples, paths below a folder, or line numbers of a text file from 0."""
    sources: list[str]
    """N: shards, folders or text files. Two may have the same keys."""
    vectors: Floats
    """f32 [N, D + 1]."""


def stored_vectors(items: Gaussian) -> Floats:
    """The vectors to store, f32 [N, D + 1]: mean, total variance.

    If a mean's length is not exactly 1, a product is larger than 1 + total_var / 2 - CSD / 2 by (length^2 - 1) / 2.

    Raises:
        ValueError: a mean is not of unit length within 1e-3, or a number is not finite.
    """
    return _vectors(_means(items), items.log_var.detach().cpu().double().exp().sum(-1).numpy())


def query_vectors(queries: Gaussian) -> Floats:
    """The vectors to search with, f32 [Q, D + 1]: mean, -1/2.

    The CSD of a result is 2 + queries.total_var - 2 * product.

    Raises:
        ValueError: a mean is not of unit length within 1e-3, or a number is not finite.
    """
    return _vectors(mean := _means(queries), np.full(len(mean), -0.5))


def read_vectors(
    folder: str | Path, kind: Kind = "image", role: Literal["stored", "query"] = "stored", rows: int = ROWS
) -> Iterator[VectorBlock]:
    """Yield the vectors of a folder of `prolip embed`, in order.

    Args:
        folder: here or at s3://, gs:// or az://.
        kind: images or texts.
        role: as from `stored_vectors`, or as from `query_vectors`.
        rows: maximum per block.

    Raises:
        UserError: the embeddings are not finished, have none of that kind, or have rows that `stored_vectors` refuses.
    """
    _, parts = complete_parts(Folder(str(folder)), kind)
    for part in parts:
        keys, sources = part.names()
        for block in part.blocks(rows):
            here = slice(block.start, block.start + len(block.mean))
            try:
                last = block.total_var if role == "stored" else np.full(len(block.mean), -0.5)
                vectors = _vectors(block.mean, last)
            except ValueError as error:
                raise UserError(f"{part.path}, rows from {block.start}", error) from error
            yield VectorBlock(keys[here], sources[here], vectors)


def _means(gaussians: Gaussian) -> Floats:
    mean: Floats = gaussians.mean.detach().to("cpu", torch.float32).numpy()
    return mean


def _vectors(mean: Floats, last: NDArray[np.floating]) -> Floats:
    if mean.ndim != 2:
        raise ValueError(f"mean: must be [N, D] (got {list(mean.shape)})")
    lengths = np.sqrt(np.einsum("nd,nd->n", mean, mean, dtype=np.float64))
    unit = np.abs(lengths - 1.0) <= LENGTH_TOLERANCE  # False for NaN, too
    for rule, values, right in (
        (f"the mean's length must be 1 within {LENGTH_TOLERANCE}", lengths, unit),
        ("the total variance must be finite", last, np.isfinite(last)),
    ):
        if not right.all():
            row = int(np.argmin(right))
            raise ValueError(f"row {row}: {rule} (got {values[row]:.6g})")
    return np.column_stack([mean, last]).astype(np.float32)
