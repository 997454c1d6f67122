"""The variational information bottleneck (VIB)."""

from __future__ import annotations

from torch import Tensor

from prolip.gaussian import Gaussian, kl_to_standard, official_kl_to_standard
from prolip.losses.config import VibForm


def vib_loss(gaussian: Gaussian, *, form: VibForm) -> Tensor:
    """KL divergence of [..., D] from the standard normal, averaged over all, a scalar in nats, >= 0 (arXiv:2410.18857).

    The official form uses half the log variance (`prolip.gaussian.official_kl_to_standard`).
    """
    divergence = official_kl_to_standard(gaussian) if form == "official" else kl_to_standard(gaussian)
    return divergence.mean()
