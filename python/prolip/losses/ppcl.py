"""The probabilistic pairwise contrastive loss (PPCL).

`ppcl_reference` is the equation. `ppcl` computes the same over all ranks, in tiles, without a matrix over all pairs.
The ranks exchange texts once (docs/decisions/009-loss-exchange.md).

W ranks, N images and N texts of each, C caption slots, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

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
    tile: int = TILE,
) -> Tensor:
    """The loss of `ppcl_reference` for this rank's images [N, D] with every rank's texts [C, N, D].

    The mean over ranks is the loss of one process on the concatenated batch, and averaged gradients are its gradients
    (specification §3.1). The ranks gather a mean and a total variance per text. Memory is O(N * (W * C * D + tile)).

    Args:
        image: this rank's, [N, D].
        text: their texts, [C, N, D]; all ranks have the same shapes.
        logit_scale: scalar > 0.
        logit_bias: scalar.
        peers: the ranks that share the batch.
        tile: texts per tile.

    Returns:
        A scalar >= 0.
    """
    dtype = torch.promote_types(image.mean.dtype, torch.float32)
    image, text = (one.to(dtype) for one in (image, text))
    texts = peers.gather(text.mean), peers.gather(text.total_var)
    inputs = [image.mean, image.total_var, *texts, logit_scale.to(dtype), logit_bias.to(dtype)]
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    total: Tensor = _pair_sum(inputs, peers.rank, tile, training)[0]
    slots, items, _ = text.mean.shape
    return total * (1 / (items * slots))


@torch.library.custom_op("prolip::ppcl_pair_sum", mutates_args=())
def _pair_sum(inputs: Sequence[Tensor], rank: int, tile: int, training: bool) -> tuple[Tensor, list[Tensor]]:
    """The loss summed over this rank's images and all texts, and the gradients of `inputs` if `training`.

    `inputs` are mean and total variance of images, [N, D] and [N], and of texts, [W, C, N, D] and [W, C, N], then scale
    and bias. torch.compile does not trace the loops inside an operator.
    """
    image, image_var, text, text_var, scale, bias = inputs
    with torch.autocast(image.device.type, enabled=False):
        scaled, half = image * scale, -0.5 * scale
        row, shift = (half * image_var + bias)[:, None], half * text_var
        total, of_scale = scale.new_zeros(()), scale.new_zeros(())
        # Without the factors scale and -scale / 2, which come last.
        grads = [torch.zeros_like(one, memory_format=torch.contiguous_format) for one in inputs[:4]] if training else []
        owners, slots, items, _ = text.shape
        for owner, slot, start in product(range(owners), range(slots), range(0, items, tile)):
            here = owner, slot, slice(start, start + tile)
            logits = torch.addmm(shift[here], scaled, text[here].T).add_(row)
            # Logits of positive pairs are negated before the softplus, and their slopes after it.
            positive = logits[start : start + tile].diagonal() if owner == rank else None
            if positive is not None:
                positive.neg_()
            total += _softplus_sum(logits)
            if not training:
                continue
            slopes = logits.sigmoid_()
            if positive is not None:
                positive.neg_()
            of_texts = slopes.sum(0)
            grads[0].addmm_(slopes, text[here])
            grads[1].add_(slopes.sum(1))
            torch.mm(slopes.T, image, out=grads[2][here])
            grads[3][here] = of_texts
            of_scale -= 0.5 * torch.dot(text_var[here], of_texts)
        if training:
            # The derivative of a logit by the scale is the pair's similarity, mean · mean - (image_var + text_var) / 2;
            # the loop has summed the last term.
            of_scale = (image * grads[0]).sum() - 0.5 * (image_var * grads[1]).sum() + of_scale
            of_bias = grads[1].sum()
            for grad, factor in zip(grads, (scale, half, scale, half), strict=True):
                grad.mul_(factor)
            grads += [of_scale, of_bias]
        return total, grads


def _shapes(inputs: Sequence[Tensor], rank: int, tile: int, training: bool) -> tuple[Tensor, list[Tensor]]:
    return inputs[-1].new_empty(()), [tensor.new_empty(tensor.shape) for tensor in inputs] if training else []


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1])


def _scale_gradients(
    ctx: Any, upstream: Tensor, of_gradients: list[Tensor | None]
) -> tuple[list[Tensor | None], None, None, None]:
    # Else second derivatives of the loss would count as zero.
    if any(grad is not None for grad in of_gradients):
        raise RuntimeError("the contrastive loss has no second derivatives")
    needed = zip(ctx.saved_tensors, ctx.needs_input_grad[0], strict=True)
    return [grad * upstream if wanted else None for grad, wanted in needed], None, None, None


_pair_sum.register_fake(_shapes)
_pair_sum.register_autograd(_scale_gradients, setup_context=_keep_gradients)


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
