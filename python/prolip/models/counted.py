"""Variances that are counted: how many unlabelled queries an item attracts. N queries, D embedding.

An item near every query (a hub) is vague, and gets a large variance. Search knows the correction as inverted softmax,
QB-Norm (arXiv:2112.12777) and nearest-neighbour normalisation (arXiv:2410.24114); as a variance it serves every use of
a Gaussian.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.gaussian import Gaussian
from prolip.models.config import CountedHeadConfig

NEAREST = 10
"""Queries whose similarities kernel `nearest` averages."""


class CountedHead(nn.Module):
    """Gaussians whose total variance is counted from a bank of queries of the other kind.

    Kernel `softmax`: factor * log(1 + sum_q weight_q sigmoid(scale cos(q, x) - offset_q) / smoothing), where the
    sigmoid is the probability that query q prefers x to a sample of other items. Kernel `nearest`: factor * the mean
    similarity of the nearest queries, at least 0. The softmax of no queries is a
    variance of 0.
    """

    queries: Tensor
    """[N, D], of unit norm."""
    offset: Tensor
    """[N], log of the sum of each query's exponentiated logits with the sample."""
    weight: Tensor
    """[N], queries among frequent ones of their like count less."""
    scale: Tensor
    smoothing: Tensor
    """Count that is added to each item's."""
    factor: Tensor

    def __init__(self, config: CountedHeadConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("queries", torch.zeros(config.queries, dim))
        self.register_buffer("offset", torch.zeros(config.queries))
        self.register_buffer("weight", torch.zeros(config.queries))
        for name in ("scale", "smoothing", "factor"):
            self.register_buffer(name, torch.ones(()))

    def total_var(self, features: Tensor) -> Tensor:
        """Total variances [...] of embeddings [..., D] of unit norm."""
        if self.config.kernel == "nearest":
            nearest = (features @ self.queries.T).topk(min(NEAREST, self.config.queries)).values
            return self.factor * nearest.mean(-1).clamp(min=0.0)
        chosen = F.linear(features, self.scale * self.queries, -self.offset).sigmoid()
        return self.factor * torch.log1p(chosen @ self.weight / self.smoothing)

    def forward(self, features: Tensor) -> Gaussian:
        """Gaussians [..., D] of one variance per item, for embeddings [..., D] of unit norm."""
        log_var = self.total_var(features).log() - math.log(features.shape[-1])
        return Gaussian(features, log_var[..., None].expand_as(features))
