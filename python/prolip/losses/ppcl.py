"""The probabilistic pairwise contrastive loss, in tiles.

Shapes: N images and N texts of this rank, C caption slots, M texts of any one rank, D embedding.

The loss is one number, so its gradient for every input is known, up to the factor that comes back from what is made of
that number, as soon as a tile of pairs is. Each tile is therefore visited once: it gives its part of the sum and of the
gradients, and is forgotten. Nothing over pairs outlives its tile, and the exchange between ranks runs once, not again
in the backward pass (docs/decisions/009-loss-exchange.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prolip.distributed import Exchange, Peers
from prolip.gaussian import Gaussian

TILE = 512
"""Texts whose pairs with this rank's images are held at a time."""
_FOLDS = 6
"""Halvings of a tile's rows before logarithms are taken: products of 2^6 factors up to 2 fit any floating type."""


def ppcl(
    image: Gaussian,
    text: Gaussian,
    logit_scale: Tensor,
    logit_bias: Tensor,
    peers: Peers,
    *,
    exchange: Exchange = "ring",
    sizes: Sequence[int] | None = None,
    tile: int = TILE,
) -> Tensor:
    """Sigmoid loss of every image [N, D] with every rank's texts [C, N, D], averaged over images and slots.

    Pair i, j of one slot is positive where i = j on the same rank. The mean over ranks is the loss of one process on
    the concatenated batch, and averaged gradients are its gradients (SPEC section 3.1), provided that the factor that
    comes back to this number is the same on all ranks. The exchange carries means and one number per text, its total
    variance; memory is O(N * (C * D + tile)) beside the inputs (arXiv:2410.18857, PPCL).

    Args:
        image: this rank's images.
        text: their texts.
        logit_scale: scalar > 0.
        logit_bias: scalar.
        peers: the ranks whose batches are one.
        exchange: how texts travel between them.
        sizes: N of every rank, where they differ.
        tile: texts that are compared at a time.
    """
    dtype = torch.promote_types(image.mean.dtype, torch.float32)
    wide = [Gaussian(one.mean.to(dtype), one.log_var.to(dtype)) for one in (image, text)]
    counts = [len(image.mean)] * peers.world_size if sizes is None else list(sizes)
    inputs = (
        wide[0].mean,
        wide[0].total_var,
        wide[1].mean,
        wide[1].total_var,
        logit_scale.to(dtype),
        logit_bias.to(dtype),
    )
    training = torch.is_grad_enabled() and any(one.requires_grad for one in inputs)
    total: Tensor = _pair_sum(*inputs, counts, peers.number, exchange, tile, training)[0]
    slots = text.mean.shape[0]
    return total * (len(counts) / (sum(counts) * slots))


@torch.library.custom_op("prolip::ppcl_pair_sum", mutates_args=())
def _pair_sum(
    image_mean: Tensor,
    image_var: Tensor,
    text_mean: Tensor,
    text_var: Tensor,
    scale: Tensor,
    bias: Tensor,
    sizes: Sequence[int],
    peers: int,
    exchange: str,
    tile: int,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The sum over this rank's images and all ranks' texts, then its gradients for the first six arguments.

    One operator, so that a compiled graph need not look into loops and exchanges. Without `training` the gradients are
    empty.
    """
    with torch.autocast(image_mean.device.type, enabled=False):
        visit = _Visit(image_mean, image_var, text_mean, text_var, scale, bias, tile, training)
        if len(sizes) == 1:
            visit.alone()
            return visit.result(None)
        own = torch.cat([text_mean.flatten(), text_var.flatten()])
        slots, _, dim = text_mean.shape
        lengths = [slots * size * (dim + 1) for size in sizes]
        way: Exchange = "ring" if exchange == "ring" else "all_gather"
        return visit.result(Peers.with_number(peers).visit(own, lengths, way, visit))


def outputs_like(inputs: Sequence[Tensor], training: bool) -> tuple[Tensor, ...]:
    """Tensors of the shapes of the outputs of an operator that gives a sum, and then its gradients if `training`."""
    shaped = [one.new_empty(one.shape if training else (0,)) for one in inputs]
    return (inputs[0].new_empty(()), *shaped)


@_pair_sum.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return outputs_like(arguments[:6], training=arguments[-1])


def keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """What autograd keeps of such an operator."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])


def scale_gradients(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of such an operator's inputs, the first of which are those that it gave gradients for."""
    factor = upstream[0]
    kept = ctx.saved_tensors
    wanted = zip(kept, ctx.needs_input_grad[: len(kept)], strict=True)
    found = [one * factor if factor is not None and needed else None for one, needed in wanted]
    return (*found, *[None] * (len(ctx.needs_input_grad) - len(kept)))


_pair_sum.register_autograd(scale_gradients, setup_context=keep_gradients)


class _Gradients(NamedTuple):
    """For the sum over pairs, of the similarity before it is scaled: what the factors are taken into at the end."""

    image_mean: Tensor
    """[N, D]"""
    image_sum: Tensor
    """[N]: sum over texts of what each pair's logit gives."""
    text_mean: Tensor
    """[C, N, D]"""
    text_sum: Tensor
    """[C, N]"""


class _Visit:
    """This rank's images on their way past all texts: a sum, and its gradients so far."""

    def __init__(
        self,
        image_mean: Tensor,
        image_var: Tensor,
        text_mean: Tensor,
        text_var: Tensor,
        scale: Tensor,
        bias: Tensor,
        tile: int,
        training: bool,
    ) -> None:
        self.image_mean, self.image_var = image_mean, image_var
        self.text_mean, self.text_var = text_mean, text_var
        self.scale, self.bias, self.tile = scale, bias, tile
        self.scaled_mean = image_mean * scale
        self.row = ((-0.5 * scale) * image_var + bias)[:, None]
        self.total = image_mean.new_zeros(())
        self.of_scale = image_mean.new_zeros(())
        self.found = (
            _Gradients(
                torch.zeros_like(image_mean),
                torch.zeros_like(image_var),
                torch.empty_like(text_mean, memory_format=torch.contiguous_format),
                torch.empty_like(text_var, memory_format=torch.contiguous_format),
            )
            if training
            else None
        )

    def alone(self) -> None:
        """The pairs within this rank."""
        found = self.found
        into = (None, None) if found is None else (found.text_mean, found.text_sum)
        self._pairs(self.text_mean, self.text_var, *into, own=True)

    def meet(self, owner: int, numbers: Tensor) -> Tensor | None:
        """The pairs with another rank's texts; returns the gradients of those, packed like the texts."""
        slots, _, dim = self.text_mean.shape
        answer = None if self.found is None else torch.empty_like(numbers)
        into = (None, None) if answer is None else _unpacked(answer, slots, dim)
        self._pairs(*_unpacked(numbers, slots, dim), *into, own=False)
        return answer

    def result(self, returned: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The sum and the gradients, once all texts were met and the answers for this rank's own came back."""
        found = self.found
        if found is None:
            none = [self.total.new_empty(0) for _ in range(6)]
            return self.total, none[0], none[1], none[2], none[3], none[4], none[5]
        # What a pair's logit gives the scale is the pair's similarity, summed here over one image's texts at a time.
        of_scale = (self.image_mean * found.image_mean).sum() - 0.5 * (self.image_var * found.image_sum).sum()
        of_bias = found.image_sum.sum()
        if returned is not None:
            slots, _, dim = self.text_mean.shape
            mean, total = _unpacked(returned, slots, dim)
            found.text_mean.add_(mean)
            found.text_sum.add_(total)
        half = -0.5 * self.scale
        return (
            self.total,
            found.image_mean.mul_(self.scale),
            found.image_sum.mul_(half),
            found.text_mean.mul_(self.scale),
            found.text_sum.mul_(half),
            of_scale + self.of_scale,
            of_bias,
        )

    def _pairs(self, mean: Tensor, var: Tensor, of_mean: Tensor | None, of_var: Tensor | None, *, own: bool) -> None:
        """Adds the pairs with texts [C, M, D]; gradients for the texts go into `of_mean` and `of_var`."""
        found = self.found
        shift = (-0.5 * self.scale) * var
        for slot in range(mean.shape[0]):
            for start in range(0, mean.shape[1], self.tile):
                here = (slot, slice(start, start + self.tile))
                texts = mean[here]
                logits = torch.addmm(shift[here], self.scaled_mean, texts.T).add_(self.row)
                # A positive pair's logit changes its sign before the softplus, and its slope changes it back.
                positive = logits[start : start + self.tile].diagonal() if own else None
                if positive is not None:
                    positive.neg_()
                self.total += _softplus_sum(logits)
                if found is None or of_mean is None or of_var is None:
                    continue
                slopes = logits.sigmoid_()
                if positive is not None:
                    positive.neg_()
                of_text = slopes.sum(0)
                found.image_sum.add_(slopes.sum(1))
                found.image_mean.addmm_(slopes, texts)
                torch.mm(slopes.T, self.image_mean, out=of_mean[here])
                of_var[here] = of_text
                self.of_scale -= 0.5 * torch.dot(var[here], of_text)


def _softplus_sum(x: Tensor) -> Tensor:
    """Sum of ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), by the logarithm of products: log1p costs more than the rest.

    The products are kept as their excess over 1, (1 + a)(1 + b) - 1 = a + b + a b, whose terms are not negative, so
    that no digit of a small one is lost.
    """
    excess = x.abs().neg_().exp_()
    for _ in range(_FOLDS):
        half, odd = divmod(len(excess), 2)
        if odd or half == 0:
            break
        excess = torch.add(excess[:half], excess[half:]).addcmul_(excess[:half], excess[half:])
    return x.clamp_min(0.0).sum() + excess.log1p_().sum()


def _unpacked(numbers: Tensor, slots: int, dim: int) -> tuple[Tensor, Tensor]:
    """Means [C, M, D] and one number per text [C, M]: views of one axis, on which the means come first."""
    size = len(numbers) // (slots * (dim + 1))
    split = slots * size * dim
    return numbers[:split].view(slots, size, dim), numbers[split:].view(slots, size)
