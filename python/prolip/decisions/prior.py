"""How frequent labels are, for answers that are right as often as possible. C labels.

A contrastive loss learns how much more often an image and a text occur together than by chance,
log p(image, text) / (p(image) p(text)). The softmax over labels is then the answer for labels that are all equally
frequent. The logarithm of a label's frequency, added to its logit, makes it p(label | image)
(docs/specification.md, section 5, classification).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from prolip.errors import UserError


def log_prior(prior: Sequence[float] | Tensor, num_labels: int) -> Tensor:
    """Logarithm of the shares of the labels, f64 [C]; minus infinity for a label that never occurs.

    Args:
        prior: C numbers, at least 0: shares or counts. They need not sum to 1.
        num_labels: C.

    Raises:
        UserError: there are not C numbers, one is negative or not finite, or all are 0.
    """
    shares = torch.as_tensor(prior, dtype=torch.float64)
    if shares.shape != (num_labels,):
        raise UserError(f"prior has {shares.numel()} numbers: it must have one per label, {num_labels}")
    for place, share in enumerate(shares.tolist()):
        if not (math.isfinite(share) and share >= 0):
            raise UserError(f"prior[{place}] is {share}: it must be a share or a count, at least 0")
    if not shares.any():
        raise UserError("prior is 0 for every label: at least one must occur")
    return (shares / shares.sum()).log()


def label_shares(labels: Tensor, num_labels: int) -> list[float]:
    """Estimate the shares of C labels from N items of known label; each is above 0, and they sum to 1.

    They are the posterior mean under a symmetric Dirichlet prior, whose concentration makes the counts most probable
    (empirical Bayes). So counts that differ no more than by chance give nearly even shares.

    Args:
        labels: i64 [N], in 0 to C - 1.
        num_labels: C.
    """
    counts = torch.bincount(labels, minlength=num_labels).double()
    total = counts.sum()
    concentrations = torch.logspace(-2, 4, 61, dtype=torch.float64)
    sums = num_labels * concentrations
    evidence = sums.lgamma() - (total + sums).lgamma()
    evidence += ((counts + concentrations[:, None]).lgamma() - concentrations.lgamma()[:, None]).sum(dim=1)
    best = concentrations[evidence.argmax()]
    return [float(share) for share in (counts + best) / (total + num_labels * best)]
