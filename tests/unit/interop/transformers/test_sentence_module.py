"""Similarity by CSD, for every form in which sentence-transformers passes embeddings."""

import torch

from prolip.gaussian import Gaussian, csd
from prolip.interop.transformers.sentence_module import csd_similarity, pairwise_csd_similarity


def _gaussians(count, seed):
    """Gaussians, and their embeddings."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.nn.functional.normalize(torch.randn(count, 8, generator=generator), dim=-1)
    gaussian = Gaussian(mean, torch.randn(count, 8, generator=generator) - 5.0)
    return gaussian, torch.cat([mean, gaussian.total_var[:, None]], 1)


def test_similarity_is_one_minus_half_the_csd():
    (a, first), (b, second) = _gaussians(3, 0), _gaussians(5, 1)
    expected = 1 - csd(a, b) / 2
    for one, other in ((first, second), (first.numpy(), second.numpy()), (list(first), list(second.numpy()))):
        torch.testing.assert_close(csd_similarity(one, other), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(csd_similarity(first[0], second), expected[:1], rtol=0, atol=1e-6)
    torch.testing.assert_close(pairwise_csd_similarity(first, second[:3]), expected.diagonal(), rtol=0, atol=1e-6)
