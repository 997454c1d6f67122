"""The training loss: a weighted sum of its terms."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from prolip.distributed import Peers
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.losses.config import Contrast, LossConfig
from prolip.losses.inclusion import inclusion_loss
from prolip.losses.ppcl import ppcl
from prolip.losses.vib import vib_loss


class Embedded(Protocol):
    """A forward pass, such as `prolip.models.ProLIPOutput`: B samples, the first M masked, C caption slots."""

    @property
    def image(self) -> Gaussian:
        """[B, D]"""

    @property
    def text(self) -> Gaussian:
        """[C, B, D]"""

    @property
    def masked_image(self) -> Gaussian | None:
        """[M, D], the first M, masked."""

    @property
    def masked_text(self) -> Gaussian | None:
        """[C, M, D], the first M, masked."""

    @property
    def logit_scale(self) -> Tensor:
        """Scalar > 0."""

    @property
    def logit_bias(self) -> Tensor | None:
        """Scalar; None without a bias, which training needs."""


class LossTerms(NamedTuple):
    """Weighted, and their sum `total`: scalars, 0 for a term whose weight is 0.

    `ppcl` is the contrastive term, whichever loss is chosen, including the variances' own and SigLIP's.
    """

    total: Tensor
    ppcl: Tensor
    inclusion: Tensor
    masked_image_inclusion: Tensor
    masked_text_inclusion: Tensor
    vib: Tensor


class ProlipLoss:
    """The ProLIP loss (arXiv:2410.18857): a contrastive term over all ranks, inclusion and VIB terms of local pairs.

    Every term is averaged over caption slots. The weights mean the same for any number of ranks. (The released code
    multiplies the local terms by that number; specification §3.1.)
    """

    def __init__(self, config: LossConfig, peers: Peers, *, variance_units: tuple[float, float] = (1.0, 1.0)) -> None:
        """`variance_units` are the total variances of images and texts at the start, the units of the variances' own
        loss."""
        self.config = config
        self.peers = peers
        self._log_units = tuple(map(math.log, variance_units))

    def __call__(self, output: Embedded) -> LossTerms:
        """The terms of this rank's part of the batch; their mean over ranks is the loss of the whole batch.

        All ranks have the same numbers of samples and of masked ones. Terms are in single precision at least, and may
        be infinite or NaN.

        Raises:
            UserError: the contrastive loss needs a similarity bias, and the model has none.
            ValueError: there is not one text of each slot per image.
        """
        config = self.config
        with torch.autocast(output.logit_scale.device.type, enabled=False):
            image, text = output.image.at_least_float32(), output.text.at_least_float32()
            if text.mean.shape[1:] != image.mean.shape:
                raise ValueError(f"texts: must fit images {list(image.mean.shape)} (got {list(text.mean.shape)})")
            contrast = inclusion = masked_image = masked_text = bottleneck = image.mean.new_zeros(())
            if config.ppcl_weight > 0:
                contrast = config.ppcl_weight * self._contrast(config.contrast, image, text, output)
                if config.variance_scale is not None:
                    contrast = contrast + config.ppcl_weight * self._variances(image, text, config.variance_scale)
            if config.siglip_weight > 0:
                contrast = contrast + config.siglip_weight * self._contrast("siglip", image, text, output)
            if config.inclusion_weight > 0:
                inclusion = config.inclusion_weight * self._inclusion(image, text)
            if config.masked_inclusion_weight > 0:
                masked_image = self._masked(image, output.masked_image)
                masked_text = self._masked(text, output.masked_text)
            if config.vib_weight > 0:
                form = config.vib_form
                bottleneck = config.vib_weight * (vib_loss(image, form=form) + vib_loss(text, form=form))
            total = contrast + inclusion + masked_image + masked_text + bottleneck
        return LossTerms(total, contrast, inclusion, masked_image, masked_text, bottleneck)

    def _contrast(self, kind: Contrast, image: Gaussian, text: Gaussian, output: Embedded) -> Tensor:
        config, scale, bias = self.config, output.logit_scale, output.logit_bias
        if bias is None:
            raise UserError("model.init_logit_bias", f"{kind} needs a similarity bias", "none")
        if kind == "siglip":
            image, text = Gaussian.point(image.mean), Gaussian.point(text.mean)
        elif config.variance_scale is not None:
            image, text = (Gaussian(one.mean, one.log_var.detach()) for one in (image, text))
        return ppcl(image, text, scale, bias, self.peers)

    def _variances(self, image: Gaussian, text: Gaussian, scale: float) -> Tensor:
        """The variances' own PPCL, at a fixed scale; the means are constants.

        With this bias, the match probabilities of an item that is orthogonal to all others sum to about one at first.
        """
        image, text = (
            Gaussian(one.mean.detach(), one.log_var - unit)
            for one, unit in zip((image, text), self._log_units, strict=True)
        )
        bias = scale - math.log(text.mean.shape[-2] * self.peers.world_size)
        constant = image.mean.new_tensor
        return ppcl(image, text, constant(scale), constant(bias), self.peers)

    def _inclusion(self, specific: Gaussian, general: Gaussian) -> Tensor:
        config = self.config
        return inclusion_loss(
            specific, general, form=config.inclusion_form, scale=config.inclusion_scale, eps=config.inclusion_eps
        )

    def _masked(self, whole: Gaussian, masked: Gaussian | None) -> Tensor:
        """Of the first M items in their masked views, weighted; 0 if nothing is masked."""
        if masked is None or masked.mean.numel() == 0:
            return whole.mean.new_zeros(())
        first = whole.rows(slice(0, masked.mean.shape[-2]))
        return self.config.masked_inclusion_weight * self._inclusion(first, masked)
