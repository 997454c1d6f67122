"""Exact nearest neighbours in part files. Results do not depend on the block size or on how rows are split into parts.

Scores are defined row by row in double precision. A matrix product in single precision gives bounds, and only rows that
can be among the best are scored exactly. Q queries, N rows, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from prolip.embeddings.storage import ROWS, Block, Floats, Part
from prolip.errors import printable
from prolip.gaussian import Gaussian, inclusion_score
from prolip.metrics.config import Score


class Hit(NamedTuple):
    """A row among the nearest."""

    score: float
    """Larger is nearer; see `retrieval_scores`."""
    part: int
    """Index of its part."""
    row: int
    """Index in the part."""


class Answer(NamedTuple):
    """A result, with the measures that are shown."""

    key: str
    source: str
    """The shard, folder or text file that the key is from."""
    score: float
    """The score that ranks the results; larger is nearer."""
    similarity: float
    """Dot product of the means."""
    uncertainty: float | None
    """Total variance of the result; None if the model has no variances."""
    inclusion: float | None
    """H of the result in the query, summed over dimensions; positive if the query is the more general. None
    if the model has no variances."""
    file: str | None = None
    """The image's own file name, if it is not the key and could be fetched."""
    caption: str | None = None
    """Its text, or the image's caption, if it could be fetched."""


def nearest(parts: Sequence[Part], means: Floats, k: int, score: Score = "csd", rows: int = ROWS) -> list[list[Hit]]:
    """Return the k best rows for each query, best first; equal scores are in order of part and row.

    Only one block and the results are in memory.

    Args:
        parts: the parts to search.
        means: f32 [Q, D].
        k: results per query, at least 1.
        score: `mean`: the dot product of the means. `csd`: that, minus half the row's total variance, which ranks as
            the closed-form sampled distance does.
        rows: rows per block.
    """
    found: list[list[Hit]] = [[] for _ in means]
    for place, part in enumerate(parts):
        for block in part.blocks(rows):
            penalty = block.total_var * np.float32(0.5 if score == "csd" else 0.0)
            rough = means @ block.mean.T - penalty
            error = _error(means, block, penalty)
            for query, best in enumerate(found):
                rows_left = _left(rough[query], error[query], best, k)
                exact = _exact(means[query], block.mean[rows_left], penalty[rows_left])
                more = [
                    Hit(value, place, block.start + row)
                    for value, row in zip(exact.tolist(), rows_left.tolist(), strict=True)
                ]
                found[query] = sorted([*best, *more], key=lambda hit: (-hit.score, hit.part, hit.row))[:k]
    return found


def _error(means: Floats, block: Block, penalty: Floats) -> NDArray[np.float64]:
    """Largest rounding error of a rough score in the block, for any order of summation, [Q]."""
    unit = (means.shape[1] + 8) * 2.0**-24
    longest = math.sqrt(float(np.einsum("nd,nd->n", block.mean, block.mean, dtype=np.float64).max(initial=0.0)))
    lengths = np.sqrt(np.einsum("qd,qd->q", means, means, dtype=np.float64))
    return np.asarray(unit * (lengths * longest + float(penalty.max(initial=0.0))))


def _left(rough: Floats, error: float, best: Sequence[Hit], k: int) -> NDArray[np.intp]:
    """The rows of a block that can be among the k best, in order."""
    floor = best[-1].score - error if len(best) == k else -math.inf
    if len(rough) > k:
        # At least k exact scores reach the k-th rough score minus the error; rows further below are not among the best.
        floor = max(floor, float(np.partition(rough, -k)[-k]) - 2 * error)
    return np.flatnonzero(rough >= floor)


def _exact(query: Floats, rows: Floats, penalty: Floats) -> NDArray[np.float64]:
    """Scores in double precision, each computed from its row alone, [N]."""
    products = rows.astype(np.float64) * query.astype(np.float64)
    return np.asarray(products.sum(axis=1) - penalty, dtype=np.float64)


def look_up(
    parts: Sequence[Part], hits: Sequence[Sequence[Hit]], queries: Gaussian, *, has_variances: bool = True
) -> list[list[Answer]]:
    """Return keys, sources and measures of the found rows, per query. Only the parts that hold them are read.

    Args:
        parts: the searched parts.
        hits: Q lists of hits.
        queries: [Q, D].
        has_variances: whether the model has variances; without them, uncertainty and inclusion are None.
    """
    read: dict[tuple[int, int], tuple[str, str, Floats, Floats, float]] = {}
    for place in sorted({hit.part for found in hits for hit in found}):
        wanted = np.unique([hit.row for found in hits for hit in found if hit.part == place])
        keys, sources = parts[place].names()
        for start, mean, log_var, total_var in parts[place].blocks(log_var=True):
            assert log_var is not None
            for row in wanted[(wanted >= start) & (wanted < start + len(mean))].tolist():
                here = row - start
                measured = mean[here].copy(), log_var[here].copy(), float(total_var[here])
                read[place, row] = (keys[row], sources[row], *measured)

    def answer(hit: Hit, query: Gaussian) -> Answer:
        key, source, mean, log_var, total_var = read[hit.part, hit.row]
        found = Gaussian(torch.from_numpy(mean)[None], torch.from_numpy(log_var)[None])
        return Answer(
            key,
            source,
            score=hit.score,
            similarity=float(mean.astype(np.float64) @ query.mean[0].double().numpy()),
            uncertainty=total_var if has_variances else None,
            inclusion=float(inclusion_score(found, query).sum()) if has_variances else None,
        )

    each = [queries.rows(slice(number, number + 1)) for number in range(len(hits))]
    return [[answer(hit, query) for hit in found] for query, found in zip(each, hits, strict=True)]


def answers_json(queries: Sequence[str], answers: Sequence[Sequence[Answer]]) -> list[dict[str, Any]]:
    """Queries and results for a JSON file; unknown fields are left out."""
    return [
        {
            "query": query,
            "answers": [
                {"rank": rank, **{name: value for name, value in answer._asdict().items() if value is not None}}
                for rank, answer in enumerate(found, start=1)
            ],
        }
        for query, found in zip(queries, answers, strict=True)
    ]


def answers_table(query: str, answers: Sequence[Answer]) -> list[str]:
    """A query's results as lines of a table."""
    keys = [printable(answer.key) for answer in answers]
    width = max(map(len, ["key", *keys]))
    lines = [
        printable(query),
        f"  {'':>4}  {'key':{width}}  {'score':>8}  {'similarity':>10}  {'uncertainty':>11}  {'inclusion':>9}",
    ]
    for rank, (key, answer) in enumerate(zip(keys, answers, strict=True), start=1):
        where = described(answer.source, answer.file, answer.caption)
        lines.append(
            f"  {rank:>4}  {key:{width}}  {answer.score:8.4f}  {answer.similarity:10.4f}  "
            f"{_number(answer.uncertainty, '.5f'):>11}  {_number(answer.inclusion, '.2f'):>9}  {where}"
        )
    return lines


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


def described(source: str, file: str | None, caption: str | None) -> str:
    """A row's source, with its file name and its caption if they are known, in one line."""
    return printable(
        "  ".join([source, *([] if file is None else [file]), *([] if caption is None else [f"“{caption}”"])])
    )
