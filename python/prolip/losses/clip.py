"""CLIP's symmetric softmax loss over all ranks' pairs, in tiles: a control without variances or bias.

Shapes: N images and N texts of this rank, C caption slots, M texts of any one rank, D embedding.

Each image's softmax runs over all texts and each text's over all images, so both travel, twice: on the first visit
every item learns the sum that it is divided by, on the second every pair gives its gradient. As in
`prolip.losses.ppcl`, nothing over pairs outlives its tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prolip.distributed import Exchange, Peers
from prolip.losses.ppcl import TILE, keep_gradients, outputs_like, scale_gradients


def clip_loss(
    image_mean: Tensor,
    text_mean: Tensor,
    logit_scale: Tensor,
    peers: Peers,
    *,
    exchange: Exchange = "ring",
    sizes: Sequence[int] | None = None,
    tile: int = TILE,
) -> Tensor:
    """Mean cross entropy of every image [N, D] among all texts, and of every text [C, N, D] among all images.

    A slot's texts are compared with each other, and slots are averaged. The mean over ranks is the loss of one process
    on the concatenated batch, and averaged gradients are its gradients, as for `ppcl` (CLIP, arXiv:2103.00020).

    Args:
        image_mean: this rank's images.
        text_mean: their texts.
        logit_scale: scalar > 0.
        peers: the ranks whose batches are one.
        exchange: how images and texts travel between them.
        sizes: N of every rank, where they differ.
        tile: items that are compared at a time.
    """
    dtype = torch.promote_types(image_mean.dtype, torch.float32)
    counts = [len(image_mean)] * peers.world_size if sizes is None else list(sizes)
    inputs = (image_mean.to(dtype), text_mean.to(dtype), logit_scale.to(dtype))
    training = torch.is_grad_enabled() and any(one.requires_grad for one in inputs)
    total: Tensor = _entropy_sum(*inputs, counts, peers.number, exchange, tile, training)[0]
    return total * (len(counts) / (2 * sum(counts) * text_mean.shape[0]))


@torch.library.custom_op("prolip::clip_entropy_sum", mutates_args=())
def _entropy_sum(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    sizes: Sequence[int],
    peers: int,
    exchange: str,
    tile: int,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum of all cross entropies of this rank's items, then its gradients for the first three arguments."""
    with torch.autocast(image.device.type, enabled=False):
        own = torch.cat([image.flatten(), text.flatten()])
        lengths = [size * image.shape[1] * (1 + text.shape[0]) for size in sizes]
        way: Exchange = "ring" if exchange == "ring" else "all_gather"
        sums = _Sums(image, text, scale, tile)
        _visit(own, lengths, peers, way, sums)
        if not training:
            none = [image.new_empty(0) for _ in range(3)]
            return sums.entropy(), none[0], none[1], none[2]
        slopes = _Slopes(sums)
        returned = _visit(own, lengths, peers, way, slopes)
        return sums.entropy(), *slopes.gradients(returned)


@_entropy_sum.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return outputs_like(arguments[:3], training=arguments[-1])


_entropy_sum.register_autograd(scale_gradients, setup_context=keep_gradients)


def _visit(own: Tensor, lengths: list[int], peers: int, way: Exchange, visitor: _Sums | _Slopes) -> Tensor | None:
    if len(lengths) == 1:
        visitor.alone()
        return None
    return Peers.with_number(peers).visit(own, lengths, way, visitor)


class _Sides(NamedTuple):
    """Some rank's images and texts."""

    image: Tensor
    """[M, D]"""
    text: Tensor
    """[C, M, D]"""

    def choices(self) -> Iterator[Tensor]:
        """What is chosen from, [M, D], in each softmax: of a slot, texts and then images."""
        for slot in self.text:
            yield slot
            yield self.image

    def choosers(self) -> Iterator[Tensor]:
        """What chooses, [M, D], in the same order."""
        for slot in self.text:
            yield self.image
            yield slot

    def unpack(self, numbers: Tensor) -> _Sides:
        """Views of some rank's numbers on one axis, on which the images come first."""
        slots, _, dim = self.text.shape
        size = len(numbers) // (dim * (1 + slots))
        return _Sides(numbers[: size * dim].view(size, dim), numbers[size * dim :].view(slots, size, dim))


class _Sums:
    """The first visit: the logarithm of every sum of exponentials, and the logits of the true pairs."""

    def __init__(self, image: Tensor, text: Tensor, scale: Tensor, tile: int) -> None:
        self.own, self.scale, self.tile = _Sides(image, text), scale, tile
        self.log_sum = image.new_full((2 * len(text), len(image)), -torch.inf)
        """[2C, N]"""

    def alone(self) -> None:
        """The sums over this rank's items."""
        self._add(self.own)

    def meet(self, owner: int, numbers: Tensor) -> None:
        """The sums over another rank's items; nothing is sent back."""
        self._add(self.own.unpack(numbers))

    def entropy(self) -> Tensor:
        """The sum of -log softmax at the true pairs, once everyone was met."""
        positive = (self.own.image * self.own.text).sum() * (2 * self.scale)
        return self.log_sum.sum() - positive

    def _add(self, others: _Sides) -> None:
        for log_sum, chooser, choices in zip(self.log_sum, self.own.choosers(), others.choices(), strict=True):
            scaled = chooser * self.scale
            for some in torch.split(choices, self.tile):
                log_sum.copy_(torch.logaddexp(log_sum, (scaled @ some.T).logsumexp(1)))


class _Slopes:
    """The second visit: the gradients, of the similarity before it is scaled."""

    def __init__(self, sums: _Sums) -> None:
        self.own, self.scale, self.tile, self.log_sum = sums.own, sums.scale, sums.tile, sums.log_sum
        image, text = self.own
        # A true pair counts in both softmaxes; its similarity's gradient is -1 in each.
        self.of_chooser, self.of_choice = (_Sides(-text.sum(0), (-image).repeat(len(text), 1, 1)) for _ in range(2))

    def alone(self) -> None:
        """The pairs within this rank."""
        self._add(self.own, self.of_choice)

    def meet(self, owner: int, numbers: Tensor) -> Tensor:
        """The pairs with another rank's items; returns the gradients of those, packed like them."""
        answer = torch.zeros_like(numbers)
        self._add(self.own.unpack(numbers), self.own.unpack(answer))
        return answer

    def gradients(self, returned: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Of images, texts and scale, once the answers for this rank's own came back."""
        # A chooser's gradient is the sum over its pairs of slope * choice: times the chooser, it is the scale's.
        of_scale = sum(
            ((one * of).sum() for one, of in zip(self.own, self.of_chooser, strict=True)), start=0 * self.scale
        )
        parts = [self.of_chooser, self.of_choice]
        parts += [] if returned is None else [self.own.unpack(returned)]
        image, text = (torch.stack(side).sum(0) * self.scale for side in zip(*parts, strict=True))
        return image, text, of_scale

    def _add(self, others: _Sides, of_others: _Sides) -> None:
        walk = zip(
            self.log_sum,
            self.own.choosers(),
            self.of_chooser.choosers(),
            others.choices(),
            of_others.choices(),
            strict=True,
        )
        for log_sum, chooser, of_chooser, choices, of_choices in walk:
            scaled = chooser * self.scale
            for some, of_some in zip(torch.split(choices, self.tile), torch.split(of_choices, self.tile), strict=True):
                share = (scaled @ some.T).sub_(log_sum[:, None]).exp_()
                of_chooser.addmm_(share, some)
                of_some.addmm_(share.T, chooser)
