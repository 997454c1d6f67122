"""Scores of doubt, one per item; larger is more doubtful.

There are two kinds. One measures how ambiguous an item is (aleatoric uncertainty): its variance, or how evenly its
probabilities are spread. The other measures what the model has not learned (epistemic uncertainty): how far the item
lies from items that it knows. N items, M known items, C labels, D dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.gaussian import Gaussian
from prolip.metrics.uncertainty import similarity_std

_BLOCK = 2**24
"""Similarities to known items that are in memory at a time."""


def logit_doubts(logits: Tensor) -> dict[str, Tensor]:
    """Return the usual scores that are computed from logits [N, C], each f64 [N].

    - `max probability`: 1 - largest probability (arXiv:1610.02136).
    - `margin`: 1 - (largest - second largest probability).
    - `entropy` of the probabilities, in nats.
    - `energy`: -ln sum exp(logit) (arXiv:2010.03759), which the softmax leaves out.
    """
    logits = logits.double()
    probabilities = logits.softmax(dim=1)
    best = probabilities.topk(min(2, logits.shape[1]), dim=1).values
    second = best[:, 1] if best.shape[1] > 1 else torch.zeros_like(best[:, 0])
    return {
        "max probability": 1 - best[:, 0],
        "margin": 1 - (best[:, 0] - second),
        "entropy": torch.special.entr(probabilities).sum(dim=1),
        "energy": -logits.logsumexp(dim=1),
    }


def expected_probabilities(images: Gaussian, classes: Gaussian, logit_scale: float) -> Tensor:
    """The softmax when both Gaussians are sampled, approximately, f64 [N, C].

    The similarity of two samples has the mean of the means' similarity and the variance of `similarity_std`. Each logit
    is divided by sqrt(1 + pi / 8 * its variance), the mean-field approximation of the expected softmax
    (arXiv:2006.07584).

    Args:
        images: [N, D].
        classes: [C, D].
        logit_scale: the scale of the similarity.
    """
    images, classes = images.to(torch.float64), classes.to(torch.float64)
    logits = logit_scale * images.mean @ classes.mean.T
    spread = logit_scale * similarity_std(images, classes)
    return (logits / (1 + torch.pi / 8 * spread.square()).sqrt()).softmax(dim=1)


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
        shrinkage: share of the covariance that is replaced by its mean variance on the diagonal, above 0, so that few
            items are enough.

    Raises:
        ValueError: there are fewer than two items.
    """
    if len(means) < 2:
        raise ValueError("a covariance needs at least two items")
    means, (_, places) = means.double(), torch.unique(labels, return_inverse=True)
    one_hot = F.one_hot(places).double()
    centres = (one_hot.T @ means) / one_hot.sum(dim=0)[:, None]
    # A label with one item has no spread of its own. If all are such, the spread around the common centre is used.
    alone = len(centres) == len(means)
    inner = means - (means.mean(dim=0) if alone else centres[places])
    covariance = inner.T @ inner / (len(means) - (1 if alone else len(centres)))
    variance = covariance.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(means.shape[1], dtype=torch.float64, device=means.device)
    return Known(centres, torch.linalg.inv((1 - shrinkage) * covariance + shrinkage * variance * eye))


def neighbour_distance(means: Tensor, known: Tensor, num_neighbors: int = 5) -> Tensor:
    """1 - cosine similarity to the k-th nearest known item, f64 [N] (arXiv:2204.06507).

    Only a block of the similarities is in memory at a time.

    Args:
        means: [N, D], unit norm.
        known: [M, D], unit norm.
        num_neighbors: k; M if there are fewer.

    Raises:
        ValueError: there is no known item.
    """
    if len(known) == 0:
        raise ValueError("a distance to known items needs at least one")
    columns, count = known.double().T, min(num_neighbors, len(known))
    blocks = torch.split(means, max(1, _BLOCK // len(known)))
    return torch.cat([1 - (some.double() @ columns).topk(count, dim=1).values[:, -1] for some in blocks])


def outlier_p_values(distances: Tensor, calibration: Tensor) -> Tensor:
    """How usual each distance is: (1 + number of calibration distances at least as large) / (n + 1), f64 [N].

    A conformal p-value: for an item exchangeable with the calibration items it is at most t with probability t at most
    (arXiv:2104.08279). Small is unusual.

    Args:
        distances: [N].
        calibration: [n], of items that were not used to fit what the distance is measured from.
    """
    ordered = calibration.double().sort().values
    below = torch.searchsorted(ordered, distances.double())
    return (1 + len(ordered) - below).double() / (len(ordered) + 1)
