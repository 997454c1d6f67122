"""Which of many candidates to train on: those whose pairs teach most, chunk by chunk (JEST, arXiv:2406.17711).

`choose_reference` is the equation. `choose` computes the same for many groups at once, without a matrix over all pairs.
Departure: the best candidates of a chunk are taken, where JEST draws them with the score as logit.

Shapes: G groups of N candidates that compete with each other, n candidates of a chunk, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian, dot_products


class Side(NamedTuple):
    """Images or texts of candidates, as pair logits need them."""

    mean: Tensor
    """[G, N, D]"""
    total_var: Tensor
    """[G, N]; zeros make the loss that of SigLIP."""

    @classmethod
    def of(cls, items: Gaussian) -> Self:
        """Of Gaussians."""
        return cls(items.mean, items.total_var)

    def rows(self, rows: Tensor) -> Side:
        """Those at `rows`, i64 [G, n], of each group."""
        return Side(self.mean.take_along_dim(rows[..., None], 1), self.total_var.take_along_dim(rows, 1))


class Judge(NamedTuple):
    """A model's pair logits within each group."""

    image: Side
    text: Side
    logit_scale: Tensor
    logit_bias: Tensor
    weight: float = 1.0
    """1 for the learner, whose loss is to be large; -1 for the reference, whose loss is to be small."""

    def own(self) -> Tensor:
        """The weighted loss of each candidate's own pair, [G, N]."""
        similarity = (self.image.mean * self.text.mean).sum(-1) - 0.5 * (self.image.total_var + self.text.total_var)
        return self.weight * F.softplus(-self.logit_scale * similarity - self.logit_bias)

    def others(self, rows: Tensor) -> Tensor:
        """The weighted losses of each candidate's image and text with those of others, i64 [G, n], summed, [G, N]."""
        some = self.image.rows(rows), self.text.rows(rows)
        to_texts, to_images = self._logits(self.image, some[1]), self._logits(some[0], self.text)
        return self.weight * (F.softplus(to_texts).sum(-1) + F.softplus(to_images).sum(-2))

    def _logits(self, image: Side, text: Side) -> Tensor:
        spread = image.total_var[..., :, None] + text.total_var[..., None, :]
        return self.logit_scale * (dot_products(image.mean, text.mean) - 0.5 * spread) + self.logit_bias


def choose_reference(losses: Tensor, num_chosen: int, chunks: int) -> Tensor:
    """The chosen candidates of one group, ascending, i64 [num_chosen], from the losses of all its pairs, [N, N].

    A candidate's score is the loss of its own pair, and of its image and text with all that were chosen before it.
    """
    chosen: list[int] = []
    for _ in range(chunks):
        score = losses.diagonal() + losses[:, chosen].sum(1) + losses[chosen].sum(0)
        score[chosen] = -math.inf
        chosen += score.topk(num_chosen // chunks).indices.tolist()
    return torch.tensor(sorted(chosen))


def choose(judges: Sequence[Judge], num_chosen: int, chunks: int, deviation: Tensor | None = None) -> Tensor:
    """The chosen candidates of each group, ascending, i64 [G, num_chosen]; the host never waits for the device.

    Args:
        judges: their weighted losses are summed.
        num_chosen: candidates to choose of each group, a multiple of `chunks`.
        chunks: steps of the choice; a later one knows what the earlier ones have chosen.
        deviation: [G, N], divides the scores.
    """
    score = torch.stack([judge.own() for judge in judges]).sum(0)
    taken, parts = torch.zeros_like(score, dtype=torch.bool), list[Tensor]()
    for _ in range(chunks):
        if parts:
            score = score + torch.stack([judge.others(parts[-1]) for judge in judges]).sum(0)
        known = score if deviation is None else score / deviation
        parts.append(known.masked_fill(taken, -math.inf).topk(num_chosen // chunks, dim=1).indices)
        taken = taken.scatter(1, parts[-1], True)
    return torch.cat(parts, 1).sort(dim=1).values
