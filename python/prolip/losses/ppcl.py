"""The probabilistic pairwise contrastive loss.

Shapes: B batch per rank, W ranks, C caption slots, D embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.distributed import Ring
from prolip.gaussian import Gaussian


def ppcl(image: Gaussian, text: Gaussian, logit_scale: Tensor, logit_bias: Tensor, ring: Ring) -> Tensor:
    """Sigmoid loss of every image [B, D] with every rank's texts [C, B, D], averaged over images and slots.

    Pair i, j of one slot is positive where i = j on the same rank. The mean over ranks is the loss of one process on
    the concatenated batch, and averaged gradients are its gradients (SPEC section 3.1). The exchange carries means and
    one number per text, its total variance, and no tensor over pairs has the axis D (arXiv:2410.18857, PPCL).
    """
    own = torch.cat([text.mean, text.total_var[..., None]], -1)
    half_var = 0.5 * image.total_var[:, None]
    total = image.mean.new_zeros(())
    for owner, remote in ring.walk(own):
        similarity = image.mean @ remote[..., :-1].transpose(-1, -2) - half_var - 0.5 * remote[..., -1].unsqueeze(-2)
        logits = logit_scale * similarity + logit_bias  # [C, B, B]
        if owner == ring.rank:
            signs = 2.0 * torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device) - 1.0
            total = total - F.logsigmoid(signs * logits).sum()
        else:
            total = total - F.logsigmoid(-logits).sum()
    return total / (len(image.mean) * text.mean.shape[:-2].numel())
