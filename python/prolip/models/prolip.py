"""The model: two towers, and the scale and bias of the similarity.

B batch, M masked samples, C caption slots, L tokens, K kept patches, D embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.gaussian import Gaussian
from prolip.images.tensors import Patches
from prolip.models.config import ModelConfig
from prolip.models.image_encoder import ImageEncoder
from prolip.models.text_encoder import TextEncoder


class ProLIPOutput(NamedTuple):
    """All that the loss needs."""

    image: Gaussian
    """[B, D]"""
    text: Gaussian
    """[C, B, D]"""
    masked_image: Gaussian | None
    """[M, D]: the first M, masked; None without masking."""
    masked_text: Gaussian | None
    """[C, M, D]: the first M, masked; None without masking."""
    logit_scale: Tensor
    """Scalar > 0: exp of the parameter."""
    logit_bias: Tensor | None
    """Scalar; None without a bias, which training needs."""


def normalised(raw: Gaussian) -> Gaussian:
    """With means of unit norm, [..., D]."""
    return Gaussian(F.normalize(raw.mean, dim=-1, eps=1e-12), raw.log_var)


class ProLIP(nn.Module):
    """Probabilistic language-image model (arXiv:2410.18857) with the parameter names of the released checkpoints.

    The parameter `logit_scale` is the *log* of the similarity scale, as in those checkpoints.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.logit_scale = nn.Parameter(torch.tensor(float(config.init_logit_scale)))
        self.logit_bias = (
            None if config.init_logit_bias is None else nn.Parameter(torch.tensor(float(config.init_logit_bias)))
        )
        self.visual = ImageEncoder(config.vision, config.embed_dim, quick_gelu=config.quick_gelu)
        self.text = TextEncoder(config.text, config.embed_dim, quick_gelu=config.quick_gelu)

    def encode_image(
        self, images: Tensor | Patches, kept_patches: Tensor | None = None, *, normalize: bool = True
    ) -> Gaussian:
        """Encode normalised pixels [B, 3, height, width], or patches, as Gaussians [B, D]; see `ImageEncoder`."""
        raw: Gaussian = self.visual(images, kept_patches)
        return normalised(raw) if normalize else raw

    def encode_text(self, token_ids: Tensor, *, normalize: bool = True) -> Gaussian:
        """Encode token ids [B, L], padded to the full context, as Gaussians [B, D]."""
        raw: Gaussian = self.text(token_ids)
        return normalised(raw) if normalize else raw

    def forward(
        self,
        images: Tensor | Patches,
        token_ids: Tensor,
        masked_token_ids: Tensor | None = None,
        kept_patches: Tensor | None = None,
    ) -> ProLIPOutput:
        """Encode a batch, whole and masked, in one call: data parallelism needs a single forward pass.

        Args:
            images: [B, 3, height, width], or patches of B images.
            token_ids: [C, B, L].
            masked_token_ids: [C, M, L], of the first M samples.
            kept_patches: [K] or [M, K], of the first M samples; given together with `masked_token_ids`.
        """
        if (masked_token_ids is None) != (kept_patches is None):
            raise ValueError("masked_token_ids and kept_patches come together or not at all")
        batch = token_ids.shape[1]
        image = self.encode_image(images)
        masked_image: Gaussian | None = None
        masked_text: Gaussian | None = None
        if masked_token_ids is None or kept_patches is None:
            text = self._encode_slots(token_ids)
        else:
            num_masked = masked_token_ids.shape[1]
            first = images[:num_masked] if isinstance(images, Tensor) else images
            masked_image = self.encode_image(first, kept_patches)
            # Whole and masked texts share one pass.
            both = self._encode_slots(torch.cat([token_ids, masked_token_ids], 1))
            text, masked_text = both.rows(slice(0, batch)), both.rows(slice(batch, None))
        return ProLIPOutput(image, text, masked_image, masked_text, self.logit_scale.exp(), self.logit_bias)

    def _encode_slots(self, token_ids: Tensor) -> Gaussian:
        return self.encode_text(token_ids.flatten(0, 1)).unflatten(*token_ids.shape[:2])
