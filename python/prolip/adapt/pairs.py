"""Cached embeddings of image-text pairs, streamed. N pairs, D embedding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.embeddings.storage import Floats, Manifest, Part, paired_parts
from prolip.errors import UserError, check
from prolip.store.folder import Folder

BLOCK = 1024
"""Rows that are read from a file at a time."""
BUFFER = 16_384
"""Rows to draw batches from; they are refilled from files in a random order."""


class PairRows(NamedTuple):
    """Embeddings of pairs, of unit norm, f32 [N, D]."""

    image: Tensor
    text: Tensor
    masked_image: Tensor | None
    """A more general view of each image; None without such views."""
    masked_text: Tensor | None

    def rows(self, index: Tensor | slice) -> PairRows:
        """The pairs at `index`."""
        return PairRows(*(None if one is None else one[index] for one in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pairs:
    """Pairs of one or several folders."""

    tables: tuple[tuple[Part, Part], ...]
    """Images, and their texts."""
    masked: tuple[tuple[Part, Part], ...]
    """More general views of the same pairs, table by table; empty without."""
    count: int
    """N"""
    dim: int
    """D"""

    def blocks(self, order: Iterable[int] | None = None, rows: int = BLOCK) -> Iterator[PairRows]:
        """Yield all pairs, at most `rows` at a time; the tables in the given order.

        Raises:
            UserError: a row is not finite or is zero, or the masked views are not of the same pairs.
        """
        for place in range(len(self.tables)) if order is None else order:
            pair = self._blocks(self.tables[place], rows)
            views = self._blocks(self.masked[place], rows) if self.masked else cycle([(None, None)])
            for own, masked in zip(pair, views, strict=bool(self.masked)):
                yield PairRows(*own, *masked)

    def _blocks(self, pair: tuple[Part, Part], rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        image, text = pair
        for first, second in zip(image.blocks(rows), text.blocks(rows), strict=True):
            yield unit(first.mean, image.path, self.dim), unit(second.mean, text.path, self.dim)

    def batches(self, size: int, seed: int, *, buffer: int = BUFFER) -> Iterator[PairRows]:
        """Yield batches of `size` pairs (all, if there are fewer) in random order, epoch after epoch, without end."""
        generator = torch.Generator().manual_seed(seed)
        size = min(size, self.count)
        held: list[PairRows] = []

        def whole_batches(kept: int) -> Iterator[PairRows]:
            """Yield whole batches of the rows held, shuffled, until about `kept` are left."""
            columns = [None if column[0] is None else torch.cat(column) for column in zip(*held, strict=True)]
            pool = PairRows(*columns)  # type: ignore[arg-type]
            pool = pool.rows(torch.randperm(len(pool.image), generator=generator))
            end = (len(pool.image) - kept) // size * size
            for start in range(0, end, size):
                yield pool.rows(slice(start, start + size))
            held[:] = [pool.rows(slice(end, None))]

        while True:
            for block in self.blocks(torch.randperm(len(self.tables), generator=generator).tolist()):
                held.append(block)
                if sum(len(one.image) for one in held) >= max(buffer, 2 * size):
                    yield from whole_batches(max(buffer // 2, size))
            yield from whole_batches(0)

    def sample(self, rows: int) -> PairRows:
        """A random sample of at most `rows` pairs (of the first `BUFFER` in a random order of tables)."""
        return next(self.batches(min(rows, BUFFER), seed=0))


def unit(rows: Floats, path: str, dim: int) -> Tensor:
    """Rows of unit norm, f32 [N, D]; a UserError if they are not finite, zero or of another dimension."""
    tensor = torch.tensor(rows)
    lengths = tensor.norm(dim=-1)
    if tensor.shape[1] != dim or not bool((lengths.isfinite() & (lengths > 0)).all()):
        raise UserError(path, f"embeddings must be [N, {dim}], finite and not 0", list(tensor.shape))
    return F.normalize(tensor, dim=1)


def open_pairs(sources: Sequence[str], masked: Sequence[str] = ()) -> Pairs:
    """Open folders of `prolip embed` or `prolip import`.

    Args:
        sources: where the pairs are.
        masked: where more general views of the same pairs are, one for each source; or ().

    Raises:
        UserError: a source is no such folder, has no pairs, or the views are of other pairs.
    """
    tables, views = (
        [pair for source in some for pair in paired_parts(Folder(source)) if pair[0].count]
        for some in (sources, masked)
    )
    rows, others = ([(image.count, image.names()[0][0]) for image, _ in some if views] for some in (tables, views))
    check(rows == others, "masked", "must be views of the same rows, in the same order", ", ".join(masked))
    total = sum(image.count or 0 for image, _ in tables)
    check(total, "embeddings", "hold no pairs", ", ".join(sources))
    return Pairs(tuple(tables), tuple(views), total, Manifest.read(Folder(sources[0])).dim)
