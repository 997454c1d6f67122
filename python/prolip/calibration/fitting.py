"""Fits that calibrate probabilities.

N items, M known items, C labels, F features, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from torch.distributions import MultivariateNormal

from prolip.errors import UserError

BOUND = 1000.0
"""Largest temperature; the smallest is 1 / BOUND."""
_STEPS = 100
_TOLERANCE = 1e-15


class PairScale(NamedTuple):
    """Pairs match with probability sigmoid(factor * logit + bias)."""

    factor: float
    bias: float


def minimise(loss: Callable[[Tensor], Tensor], start: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Minimum of a convex function of few parameters, f64 [F], and the Hessian there, by damped Newton steps."""
    at = torch.tensor(start, dtype=torch.float64)
    for _ in range(_STEPS):
        slope, curvature = jacobian(loss, at), hessian(loss, at)  # type: ignore[no-untyped-call]
        step = torch.linalg.pinv(curvature, hermitian=True) @ slope  # the smallest step where the loss is flat
        gain, before = float(slope @ step), loss(at)
        while loss(at - step) > before + _TOLERANCE:
            step = step / 2
        at = at - step
        if gain <= _TOLERANCE:
            break
    return at, curvature


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature, in [1 / BOUND, BOUND], that maximises the likelihood (arXiv:1706.04599, section 4.2).

    The loss is convex in 1 / temperature. If its standard error is as large as its value (nearly all labels have the
    largest logit), labels are smoothed by 1 / (N + 1); else new answers would be overconfident.

    Args:
        logits: [N, C];
        labels: i64 [N].

    Raises:
        ValueError: there is no item.
    """
    if len(labels) == 0:
        raise ValueError("labels: must not be empty")
    logits = logits.double()

    def fit(smoothing: float) -> tuple[float, float]:
        (inverse,), curvature = minimise(
            lambda inverse: F.cross_entropy(inverse * logits, labels, label_smoothing=smoothing), [1.0]
        )
        return float(inverse), float(curvature)

    inverse, curvature = fit(0.0)
    if abs(inverse) * math.sqrt(len(labels) * max(0.0, curvature)) <= 1:
        inverse, _ = fit(1 / (len(labels) + 1))
    return 1 / min(max(inverse, 1 / BOUND), BOUND)


def fit_pairs(logits: Tensor, match: Tensor) -> PairScale:
    """Factor and bias that maximise the likelihood of the matches (Platt scaling).

    Of P matches and Q other pairs, matches count as (P + 1) / (P + 2) and others as 1 / (Q + 2), so that factor and
    bias are finite even for separable pairs.

    Args:
        logits: [N, C], the model's pair logits.
        match: bool [N, C].

    Raises:
        ValueError: all pairs match, or none does.
    """
    num_matches, num_others = int(match.sum()), int((~match).sum())
    if not num_matches or not num_others:
        raise ValueError("match: must hold both pairs that match and pairs that do not")
    target = torch.where(match.flatten(), (num_matches + 1) / (num_matches + 2), 1 / (num_others + 2))
    factor, bias = fit_logistic(logits.flatten()[:, None], target).tolist()
    return PairScale(factor, bias)


def fit_logistic(features: Tensor, target: Tensor, ridge: float = 0.0) -> Tensor:
    """Weights and bias (last) that minimise the cross-entropy of sigmoid(features @ weights + bias), f64 [F + 1].

    Args:
        features: [N, F].
        target: [N], probabilities in [0, 1] (or bool).
        ridge: weight of half the squared norm of the weights of standardised features; the bias is free.
    """
    features, target = features.double(), target.double()
    design = torch.cat([features, torch.ones_like(target)[:, None]], dim=1)
    spread = torch.cat([features.std(dim=0, correction=0), torch.zeros(1)])

    def loss(weights: Tensor) -> Tensor:
        penalty = 0.5 * ridge * (spread * weights).square().sum()
        return F.binary_cross_entropy_with_logits(design @ weights, target) + penalty

    return minimise(loss, [0.0] * design.shape[1])[0]


class Known(NamedTuple):
    """The distribution of known items: a centre per label, and one covariance for all (Mahalanobis distance)."""

    centres: Tensor
    """f64 [C, D], of the labels that occur."""
    precision: Tensor
    """f64 [D, D], the inverse of the covariance within labels."""

    def distance(self, means: Tensor) -> Tensor:
        """Squared Mahalanobis distance of means [N, D] from the nearest centre, f64 [N] (arXiv:1807.03888)."""
        root = torch.linalg.cholesky(self.precision)
        return torch.cdist(means.double() @ root, self.centres @ root).square().amin(dim=1)


def fit_known(means: Tensor, labels: Tensor, shrinkage: float = 0.1) -> Known:
    """Centres and covariance of labelled items.

    Args:
        means: [M, D].
        labels: i64 [M].
        shrinkage: share of the covariance, above 0, replaced by its mean variance, so that few items suffice.
    """
    means, (_, places) = means.double(), torch.unique(labels, return_inverse=True)
    one_hot = F.one_hot(places).double()
    centres = (one_hot.T @ means) / one_hot.sum(dim=0)[:, None]
    inner = means - centres[places]
    covariance = inner.T @ inner / max(1, len(means) - len(centres))
    variance = covariance.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(means.shape[1], dtype=torch.float64, device=means.device)
    return Known(centres, torch.linalg.inv((1 - shrinkage) * covariance + shrinkage * variance * eye))


def class_densities(means: Tensor, known: Tensor, labels: Tensor, num_labels: int, num_components: int = 128) -> Tensor:
    """Log density of items under a Gaussian per label, f64 [N, C]; minus infinity for a label without known items.

    As in ICPE (arXiv:2511.22019) and its released code: full covariances in the space of the 128 largest principal
    components. Ours is the shrinkage: every label has `num_components` items more, with the covariance of `fit_known`.

    Args:
        means: [N, D].
        known: [M, D].
        labels: i64 [M], of the known items.
        num_components: at most this many.
    """
    known = known.double()
    basis = torch.linalg.eigh(known.T.cov()).eigenvectors[:, -num_components:]
    known, means = known @ basis, means.double() @ basis
    shared, weight = fit_known(known, labels), known.shape[1]
    prior = weight * torch.linalg.inv(shared.precision)
    found = means.new_full((len(means), num_labels), -math.inf)
    for label, centre in zip(torch.unique(labels).tolist(), shared.centres, strict=True):
        inner = known[labels == label] - centre
        covariance = (inner.T @ inner + prior) / (len(inner) + weight)
        found[:, label] = MultivariateNormal(centre, covariance).log_prob(means)  # type: ignore[no-untyped-call]
    return found


def log_prior(prior: Sequence[float] | Tensor, num_labels: int) -> Tensor:
    """Logarithm of the shares of the labels, f64 [C]; minus infinity for a label that never occurs.

    Contrastive logits are log p(image, text) / (p(image) p(text)): their softmax is p(label | image) for equally
    frequent labels, and with this prior for others (docs/specification.md, section 5).

    Args:
        prior: C shares or counts, at least 0; they need not sum to 1.

    Raises:
        UserError: there are not C finite numbers of at least 0, or all are 0.
    """
    shares = torch.as_tensor(prior, dtype=torch.float64)
    if shares.shape != (num_labels,):
        raise UserError("prior", "must have one number per label", f"{shares.numel()} for {num_labels} labels")
    if not bool(shares.isfinite().all() & (shares >= 0).all() & shares.any()):
        raise UserError("prior", "must be finite, at least 0, and not all 0", shares.tolist())
    return (shares / shares.sum()).log()


def label_shares(labels: Tensor, num_labels: int) -> list[float]:
    """Estimated frequencies of C labels, above 0 and summing to 1.

    Posterior mean under a symmetric Dirichlet prior whose concentration is fitted (empirical Bayes). Counts that differ
    no more than by chance give nearly even shares.

    Args:
        labels: i64 [N], in 0 to C - 1.
    """
    counts = torch.bincount(labels, minlength=num_labels).double()
    total = counts.sum()
    concentrations = torch.logspace(-2, 4, 61, dtype=torch.float64)
    sums = num_labels * concentrations
    evidence = sums.lgamma() - (total + sums).lgamma()
    evidence += ((counts + concentrations[:, None]).lgamma() - concentrations.lgamma()[:, None]).sum(dim=1)
    best = concentrations[evidence.argmax()]
    return [float(share) for share in (counts + best) / (total + num_labels * best)]
