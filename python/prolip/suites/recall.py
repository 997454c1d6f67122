"""Recall between pictures and captions as rows. N pictures, M captions, D dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prolip.eval.retrieval import RECALL_AT, Score, first_ranks
from prolip.gaussian import Gaussian
from prolip.suites.results import Row, row_of_items


def recall_rows(
    task: str, images: Gaussian, texts: Gaussian, image_of_text: Tensor, scores: Sequence[Score]
) -> list[Row]:
    """The mean of both directions' recall at 1 by the means, then recall at 1, 5 and 10 each way by every score.

    Args:
        task: names the rows.
        images: [N, D], unit means.
        texts: [M, D], unit means.
        image_of_text: i64 [M], the place of each caption's picture.
        scores: by means alone, which comes first, and by sampled distance.
    """
    correct = torch.arange(len(images.mean))[:, None] == image_of_text[None]
    rows = []
    for score in scores:
        suffix = ", by sampled distance" if score == "csd" else ""
        for way, queries, candidates, right in (
            ("picture to caption", images, texts, correct),
            ("caption to picture", texts, images, correct.T),
        ):
            ranks = first_ranks(queries, candidates, right, score)
            rows += [row_of_items(task, f"{way} R@{k}{suffix}", (ranks < k).double()) for k in RECALL_AT]
    both = [row for row in rows if row.metric.endswith("R@1")]
    main = Row(
        task=task,
        metric="mean recall@1",
        value=sum(row.value for row in both) / len(both),
        num_items=len(images.mean),
        main=True,
        mean_of=[row.key for row in both],
    )
    return [main, *rows]
