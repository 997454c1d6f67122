"""A Laplace approximation over a linear map on top of each frozen tower (after BayesVLM, arXiv:2412.06014).

A map W, [D, D], on the cached embeddings z is random, with the identity as its most probable value; the Gaussians are
those of W z. Departure: BayesVLM's map is the last projection, so directions that it drops can become uncertain there.
For each tower, with the other one fixed:

- Likelihood: the contrastive loss of each image with the texts of its batch (SigLIP's with a bias, else CLIP's
  softmax), and of each text with the images.
- Curvature: the generalised Gauss-Newton matrix at W = 1, as one Kronecker product A x B with A = mean of z z^T and
  B = sum of J^T L J. J is the Jacobian of the logits by the normalised W z, L the Hessian of the loss by the logits.
- Prior: N(0, 1 / precision) on each element of W; the precision maximises the evidence.

In the eigenvectors u of A and v of B, with eigenvalues a and b, the posterior covariance of W z is
sum_j v_j v_j^T sum_i (u_i . z)^2 / (a_i b_j + precision). Its diagonal is the variance. B batch, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.adapt.pairs import PairRows
from prolip.models.adapter import Adapter, LaplaceHead


class Factors(NamedTuple):
    """Kronecker factors of a tower's curvature, f64 [D, D]."""

    inputs: Tensor
    """A: mean of z z^T."""
    outputs: Tensor
    """B: sum of J^T L J."""


class Posterior(NamedTuple):
    """A tower's map, in the form that its head uses."""

    directions: Tensor
    """[D, D], eigenvectors u of A, one per column."""
    spread: Tensor
    """[D, D]: sum_j v_jd^2 / (a_i b_j + precision)."""
    precision: float
    """Precision of the prior."""


def fit_laplace(
    adapter: Adapter, batches: Iterable[PairRows], scale: float, bias: float | None
) -> tuple[Posterior, Posterior]:
    """Fill the adapter's heads with the posteriors of images and texts, and return these, in one pass.

    Args:
        adapter: with the method `laplace`.
        batches: the pairs; each image is compared with the texts of its batch.
        scale: the frozen model's.
        bias: the frozen model's; None without one.
    """
    factors = kronecker_factors(batches, adapter.config.embed_dim, scale, bias)
    found = [posterior(*one) for one in factors]
    for head, one in zip((adapter.image, adapter.text), found, strict=True):
        assert isinstance(head, LaplaceHead)
        head.directions.copy_(one.directions)
        head.spread.copy_(one.spread)
    adapter.set_logits(scale, bias)
    image, text = found
    return image, text


def kronecker_factors(
    batches: Iterable[PairRows], dim: int, scale: float, bias: float | None
) -> tuple[Factors, Factors]:
    """The factors of images and of texts, summed over batches."""
    sums = [torch.zeros(dim, dim, dtype=torch.float64) for _ in range(4)]
    count = 0
    for batch in batches:
        # L is a small difference of large numbers if the model rarely confuses pairs.
        image, text = batch.image.double(), batch.text.double()
        for place, (own, others) in enumerate(((image, text), (text, image))):
            sums[2 * place] += own.T @ own
            sums[2 * place + 1] += output_factor(own, others, scale, bias)
        count += len(batch.image)
    return Factors(sums[0] / count, sums[1]), Factors(sums[2] / count, sums[3])


def output_factor(own: Tensor, others: Tensor, scale: float, bias: float | None) -> Tensor:
    """Sum over rows of J^T L J, [D, D], for embeddings `own` [B, D] compared with `others` [B, D], of unit norm.

    With P = 1 - z z^T, row i adds scale^2 P_i (sum_j w_ij h_j h_j^T) P_i with w = p (1 - p) for the sigmoid.
    The softmax has w = p, and subtracts the square of P_i sum_j p_ij h_j.
    """
    similarity = own @ others.T
    logits = scale * similarity
    if bias is not None:
        logits = logits + bias
        weight = logits.sigmoid() * (-logits).sigmoid()
    else:
        weight = logits.softmax(1)
    moved = weight * similarity
    cross = own.T @ (moved @ others)
    total = others.T @ (weight.sum(0)[:, None] * others) - cross - cross.T
    total += own.T @ ((moved * similarity).sum(1)[:, None] * own)
    if bias is None:
        mean = weight @ others
        mean -= (own * mean).sum(1, keepdim=True) * own
        total -= mean.T @ mean
    return scale**2 * total


def posterior(inputs: Tensor, outputs: Tensor) -> Posterior:
    """The posterior of a map from its factors A and B, f64 [D, D], with the prior precision of maximum evidence."""
    a, u = torch.linalg.eigh(inputs)
    b, v = torch.linalg.eigh(outputs)
    curvature = a.clamp_min(0)[:, None] * b.clamp_min(0)
    precision = best_precision(curvature)
    return Posterior(u, (1 / (curvature + precision)) @ v.square().T, precision)


def best_precision(curvature: Tensor) -> float:
    """The prior precision p of maximum evidence, from the curvature's eigenvalues [D, D].

    Up to a constant the log evidence is (D^2 ln p - p D - sum ln(curvature + p)) / 2. At its maximum p D equals
    sum of curvature / (curvature + p); bisection finds it, since the left side rises with p and the right falls.
    """
    dim = len(curvature)
    low, high = -60.0, math.log(dim) + 1.0  # p is at most D, since every share is at most 1
    for _ in range(100):
        middle = 0.5 * (low + high)
        p = math.exp(middle)
        if float((curvature / (curvature + p)).sum()) > p * dim:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))
