"""CLIP's symmetric softmax loss over all ranks' pairs, in tiles: a control without variances or bias.

The ranks exchange images and texts twice: for each softmax's denominator, and for the gradients. As in
`prolip.losses.ppcl`, no matrix over all pairs exists.

Shapes: N images and N texts of this rank, C caption slots, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.distributed import Peers
from prolip.losses.fused import register_gradients
from prolip.losses.ppcl import TILE


def clip_loss(
    image_mean: Tensor,
    text_mean: Tensor,
    logit_scale: Tensor,
    peers: Peers,
    *,
    gathers: bool = False,
    tile: int = TILE,
) -> Tensor:
    """Mean cross entropy of every image [N, D] among all texts, and of every text [C, N, D] among all images, in nats.

    Caption slots are averaged. Ranks and arguments are as in `ppcl` (CLIP, arXiv:2103.00020).
    """
    dtype = torch.promote_types(image_mean.dtype, torch.float32)
    inputs = [image_mean.to(dtype), text_mean.to(dtype), logit_scale.to(dtype)]
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    total: Tensor = _entropy_sum(inputs, peers.number, gathers, tile, training)[0]
    slots, items, _ = text_mean.shape
    return total * (1 / (2 * items * slots))


@torch.library.custom_op("prolip::clip_entropy_sum", mutates_args=())
def _entropy_sum(
    inputs: Sequence[Tensor], peers: int, gathers: bool, tile: int, training: bool
) -> tuple[Tensor, list[Tensor]]:
    """Return the sum of all cross entropies of this rank's items, and its gradients if `training`.

    `inputs` are image means, text means and the scale.
    """
    image, text, scale = inputs
    with torch.autocast(image.device.type, enabled=False):
        own, ranks = _Sides(image, text), Peers.with_number(peers)
        visit = _Visit(own, scale, tile)
        ranks.visit(own, visit, gathers=gathers, with_grads=False)
        if not training:
            return visit.entropy(), []
        visit.begin_gradients()
        returned = ranks.visit(own, visit, gathers=gathers, with_grads=True)
        return visit.entropy(), visit.gradients(returned)


register_gradients(_entropy_sum)


class _Sides(NamedTuple):
    """Some rank's images and texts, or the gradients of both."""

    image: Tensor
    """[N, D]"""
    text: Tensor
    """[C, N, D]"""

    def queries(self) -> Iterator[Tensor]:
        """Yield the queries of each softmax, [N, D]: for each slot, images and then texts."""
        for slot in self.text:
            yield self.image
            yield slot

    def keys(self) -> Iterator[Tensor]:
        """Yield the items that each softmax runs over, [N, D], in the same order: texts and then images."""
        for slot in self.text:
            yield slot
            yield self.image


class _Visit:
    """The first visit sums exponentials, the second computes gradients without the factor `scale`."""

    def __init__(self, own: _Sides, scale: Tensor, tile: int) -> None:
        self.own, self.scale, self.tile = own, scale, tile
        self.log_sum = own.image.new_full((2 * len(own.text), len(own.image)), -torch.inf)
        """Logarithm of each softmax's denominator, [2C, N]."""
        self.query_grads, self.key_grads = own, own

    def begin_gradients(self) -> None:
        """Prepare the second visit. A true pair counts in both softmaxes, with a gradient of -1 in each."""
        image, text = self.own
        self.query_grads, self.key_grads = (_Sides(-text.sum(0), (-image).repeat(len(text), 1, 1)) for _ in range(2))

    def local(self) -> None:
        """Visit the pairs within this rank."""
        self._add(self.own, None if self.key_grads is self.own else self.key_grads)

    def remote(self, tensors: Sequence[Tensor], grads: Sequence[Tensor] | None) -> None:
        """Visit the pairs with another rank's items."""
        self._add(_Sides(*tensors), None if grads is None else _Sides(*grads))

    def entropy(self) -> Tensor:
        """Return the sum of -log softmax at the true pairs, after the first visit."""
        return self.log_sum.sum() - (self.own.image * self.own.text).sum() * (2 * self.scale)

    def gradients(self, returned: Sequence[Tensor] | None) -> list[Tensor]:
        """Return the gradients of images, texts and scale; `returned` are the other ranks' for this rank's items."""
        # A query's gradient is the sum of slope * key over its pairs. Its dot product with the query is a part of the
        # scale's gradient.
        grad_scale = sum(
            ((one * grad).sum() for one, grad in zip(self.own, self.query_grads, strict=True)), start=0 * self.scale
        )
        found = [self.query_grads, self.key_grads, *([] if returned is None else [_Sides(*returned)])]
        image, text = (torch.stack(side).sum(0) * self.scale for side in zip(*found, strict=True))
        return [image, text, grad_scale]

    def _add(self, others: _Sides, grads: _Sides | None) -> None:
        walk = zip(
            self.log_sum,
            self.own.queries(),
            self.query_grads.queries(),
            others.keys(),
            (others if grads is None else grads).keys(),
            strict=True,
        )
        for log_sum, query, query_grad, keys, key_grads in walk:
            scaled = query * self.scale
            for some, some_grads in zip(torch.split(keys, self.tile), torch.split(key_grads, self.tile), strict=True):
                logits = scaled @ some.T
                if grads is None:
                    log_sum.copy_(torch.logaddexp(log_sum, logits.logsumexp(1)))
                else:
                    share = logits.sub_(log_sum[:, None]).exp_()
                    query_grad.addmm_(share, some)
                    some_grads.addmm_(share.T, query)
