"""The probabilistic pairwise contrastive loss (PPCL).

`ppcl_reference` is the equation. `ppcl` computes the same over all ranks, in tiles, so that no matrix over all pairs
exists. The ranks exchange texts once (docs/decisions/009-loss-exchange.md).

Shapes: N images and N texts of this rank, C caption slots, M texts of a tile, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.distributed import Peers
from prolip.gaussian import Gaussian, csd_logits

TILE = 512
"""Texts whose pairs with this rank's images are in memory at a time."""
_FOLDS = 6
"""Halvings of a tile's rows before logarithms are taken: a product of 2^6 factors up to 2 fits into float32."""


def ppcl_reference(image: Gaussian, text: Gaussian, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
    """The sigmoid loss of all images [N, D] with all texts [C, N, D], averaged over images and slots; one process.

    Pair i, j of a slot is positive if i = j (arXiv:2410.18857, PPCL).
    """
    logits = csd_logits(image, text, logit_scale, logit_bias)  # [C, N, N]; for unit means, scale * (1 - csd / 2) + bias
    sign = 2.0 * torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device) - 1.0
    return -F.logsigmoid(sign * logits).sum(-1).mean()


def ppcl(
    image: Gaussian,
    text: Gaussian,
    logit_scale: Tensor,
    logit_bias: Tensor,
    peers: Peers,
    *,
    gathers: bool = False,
    tile: int = TILE,
) -> Tensor:
    """The loss of `ppcl_reference` for this rank's images [N, D] with every rank's texts [C, N, D].

    The mean over ranks is the loss of one process on the concatenated batch, and averaged gradients are its gradients
    (specification §3.1), if the upstream gradient is the same on all ranks. The ranks exchange a mean and a total
    variance per text. Memory is O(N * (C * D + tile)) beside the inputs.

    Args:
        image: this rank's images, [N, D].
        text: their texts, [C, N, D]; all ranks have the same shapes.
        logit_scale: scalar > 0.
        logit_bias: scalar.
        peers: the ranks that share the batch.
        gathers: exchange all ranks' texts in one collective, instead of rank by rank.
        tile: texts per tile.

    Returns:
        A scalar >= 0.
    """
    dtype = torch.promote_types(image.mean.dtype, torch.float32)
    image, text = (one.to(dtype) for one in (image, text))
    inputs = [image.mean, image.total_var], [text.mean, text.total_var], [logit_scale.to(dtype), logit_bias.to(dtype)]
    training = torch.is_grad_enabled() and any(tensor.requires_grad for pair in inputs for tensor in pair)
    total: Tensor = _pair_sum(*inputs, peers.number, gathers, tile, training)[0]
    slots, items, _ = text.mean.shape
    return total * (1 / (items * slots))


@torch.library.custom_op("prolip::ppcl_pair_sum", mutates_args=())
def _pair_sum(
    image: Sequence[Tensor],
    text: Sequence[Tensor],
    logit: Sequence[Tensor],
    peers: int,
    gathers: bool,
    tile: int,
    training: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The loss summed over this rank's images and all ranks' texts, and its gradients if `training`.

    `image` and `text` are mean and total variance, `logit` is scale and bias. torch.compile does not trace the loops
    and exchanges inside an operator.
    """
    with torch.autocast(image[0].device.type, enabled=False):
        visit = _Visit(_Side(*image), _Side(*text), *logit, tile=tile, training=training)
        returned = Peers.with_number(peers).visit(text, visit, gathers=gathers, with_grads=training)
        return visit.total, visit.gradients(returned)


def _shapes(
    image: Sequence[Tensor], text: Sequence[Tensor], logit: Sequence[Tensor], *settings: Any
) -> tuple[Tensor, list[Tensor]]:
    gradients = [tensor.new_empty(tensor.shape) for tensor in (*image, *text, *logit)]
    return logit[0].new_empty(()), gradients if settings[-1] else []


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1])


def _scale_gradients(
    ctx: Any, upstream: Tensor, of_gradients: list[Tensor | None]
) -> tuple[list[Tensor | None] | None, ...]:
    # Without this error, the loss's second derivatives would count as zero.
    if any(grad is not None for grad in of_gradients):
        raise RuntimeError("the contrastive loss has no second derivatives")
    grads = iter(ctx.saved_tensors)

    def scaled(needed: bool) -> Tensor | None:
        grad: Tensor = next(grads)
        return grad * upstream if needed else None

    return tuple(
        [scaled(one) for one in needed] if isinstance(needed, list) else None for needed in ctx.needs_input_grad
    )


_pair_sum.register_fake(_shapes)
_pair_sum.register_autograd(_scale_gradients, setup_context=_keep_gradients)


class _Side(NamedTuple):
    """Images or texts as the loss needs them, or their gradients."""

    mean: Tensor
    """[N, D] or [C, N, D]"""
    total_var: Tensor
    """[N] or [C, N]"""


class _Visit:
    """The loss of the pairs visited so far, and its gradients."""

    def __init__(self, image: _Side, text: _Side, scale: Tensor, bias: Tensor, *, tile: int, training: bool) -> None:
        self.image, self.text, self.scale, self.tile = image, text, scale, tile
        self.scaled_mean = image.mean * scale
        self.row = ((-0.5 * scale) * image.total_var + bias)[:, None]
        self.total = scale.new_zeros(())
        self.grads = (_zeros_like(image), _zeros_like(text)) if training else None
        """Of images and of texts, without the factors scale and -1/2, which `gradients` applies last."""
        self.grad_scale = scale.new_zeros(())

    def local(self) -> None:
        self._add(self.text, None if self.grads is None else self.grads[1], own=True)

    def remote(self, tensors: Sequence[Tensor], grads: Sequence[Tensor] | None) -> None:
        self._add(_Side(*tensors), None if grads is None else _Side(*grads), own=False)

    def gradients(self, returned: Sequence[Tensor] | None) -> list[Tensor]:
        """The gradients of images, texts, scale and bias; `returned` are other ranks' for this rank's texts."""
        if self.grads is None:
            return []
        image, text = self.grads
        # The derivative of a logit by the scale is the pair's similarity, mean · mean - (image_var + text_var) / 2;
        # `_add` has summed the last term.
        grad_scale = (self.image.mean * image.mean).sum() - 0.5 * (self.image.total_var * image.total_var).sum()
        grad_bias = image.total_var.sum()
        if returned is not None:
            for grad, remote in zip(text, returned, strict=True):
                grad.add_(remote)
        half = -0.5 * self.scale
        for side in self.grads:
            side.mean.mul_(self.scale)
            side.total_var.mul_(half)
        return [*image, *text, grad_scale + self.grad_scale, grad_bias]

    def _add(self, texts: _Side, grads: _Side | None, *, own: bool) -> None:
        """Their gradients go into `grads`."""
        shift = (-0.5 * self.scale) * texts.total_var
        for slot in range(len(texts.mean)):
            for start in range(0, texts.mean.shape[1], self.tile):
                here = (slot, slice(start, start + self.tile))
                mean = texts.mean[here]
                logits = torch.addmm(shift[here], self.scaled_mean, mean.T).add_(self.row)
                # Negate the logits of positive pairs before the softplus, and their slopes after it.
                positive = logits[start : start + self.tile].diagonal() if own else None
                if positive is not None:
                    positive.neg_()
                self.total += _softplus_sum(logits)
                if self.grads is None or grads is None:
                    continue
                slopes = logits.sigmoid_()
                if positive is not None:
                    positive.neg_()
                text_slopes = slopes.sum(0)
                image_grads = self.grads[0]
                image_grads.total_var.add_(slopes.sum(1))
                image_grads.mean.addmm_(slopes, mean)
                torch.mm(slopes.T, self.image.mean, out=grads.mean[here])
                grads.total_var[here] = text_slopes
                self.grad_scale -= 0.5 * torch.dot(texts.total_var[here], text_slopes)


def _zeros_like(side: _Side) -> _Side:
    return _Side(*(torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in side))


def _softplus_sum(x: Tensor) -> Tensor:
    """The sum of ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), with one logarithm for the product of many factors.

    A product is stored as its excess over 1, (1 + a)(1 + b) - 1 = a + b + ab, so small terms lose no digits.
    """
    excess = x.abs().neg_().exp_()
    for _ in range(_FOLDS):
        half, odd = divmod(len(excess), 2)
        if odd or half == 0:
            break
        excess = torch.add(excess[:half], excess[half:]).addcmul_(excess[:half], excess[half:])
    return x.clamp_min(0.0).sum() + excess.log1p_().sum()
