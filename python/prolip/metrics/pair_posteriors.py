"""Posteriors of pairs of images and captions. B pairs, S of a sample, D embedding."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

_ROWS = 1024


class Pairs(NamedTuple):
    """Some pairs of a data set."""

    numbers: Tensor
    """[B], in the data set."""
    image: Tensor
    """[B, D], means."""
    text: Tensor
    """[B, D], means."""
    image_var: Tensor
    """[B], total variances."""
    text_var: Tensor
    """[B], total variances."""

    @property
    def reversed(self) -> Self:
        """The same, with captions for images."""
        return self._replace(image=self.text, text=self.image, image_var=self.text_var, text_var=self.image_var)


def pair_posteriors(pairs: Pairs, sample: Pairs, count: int, logit_scale: float) -> Tensor:
    """log p(caption | image) + log p(image | caption) of each pair, [B], by the softmax of the logits over a data set.

    Image and caption belong together if each is likely for the other beside all others; a cosine alone does not tell
    whether others are nearer.

    Args:
        pairs: whose posteriors.
        sample: random pairs that stand for all the others; if they are all, the posteriors are exact.
        count: of pairs in the data set.
        logit_scale: the model's.
    """
    starts = range(0, len(pairs.numbers), _ROWS)
    blocks = (Pairs(*(values[start : start + _ROWS] for values in pairs)) for start in starts)
    return torch.cat([_posteriors(block, sample, count, logit_scale) for block in blocks])


def _posteriors(pairs: Pairs, sample: Pairs, count: int, logit_scale: float) -> Tensor:
    own = pairs.numbers[:, None] == sample.numbers
    each_stands_for = (count - 1) / (len(sample.numbers) - own.sum(1)).clamp(min=1)
    found = torch.zeros_like(pairs.image_var)
    for some, others in ((pairs, sample), (pairs.reversed, sample.reversed)):
        logit = logit_scale * ((some.image * some.text).sum(1) - (some.image_var + some.text_var) / 2)
        logits = logit_scale * (some.image @ others.text.T - (some.image_var[:, None] + others.text_var) / 2)
        rest = logits.masked_fill(own, -torch.inf).logsumexp(1) + each_stands_for.log()
        found += logit - torch.logaddexp(logit, rest)
    return found
