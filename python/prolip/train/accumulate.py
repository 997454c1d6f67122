"""Gradient accumulation that is exact although the loss compares every sample with every other one.

All micro-batches are embedded without gradient, and the loss of the whole batch gives each embedding's gradient. Each
micro-batch is then embedded again, with the same random numbers, to pass these gradients to the parameters. This costs
one more forward pass.

Shapes: B samples of this rank, of which the first M are masked, C caption slots, L tokens, K kept patches, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prolip.checkpoint import restore_rng, rng_state
from prolip.data.device import DeviceBatch
from prolip.gaussian import Gaussian, concatenate
from prolip.images.tensors import Patches
from prolip.losses import LossTerms
from prolip.models import ProLIPOutput
from prolip.train.parallel import no_gradient_sync


def backward(
    network: nn.Module,
    loss: Callable[[ProLIPOutput], LossTerms],
    batch: DeviceBatch,
    *,
    micro_batches: int = 1,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    scale: float | Tensor = 1.0,
) -> tuple[LossTerms, ProLIPOutput]:
    """Add the gradients of a batch to those of the parameters; returns its loss terms and embeddings.

    Args:
        network: a ProLIP model, or one wrapped for data parallelism.
        micro_batches: their number; the gradient does not depend on it.
        precision: context of every forward pass.
        scale: factor on the gradients.
    """
    if micro_batches == 1:
        with precision():
            whole: ProLIPOutput = network(batch.images, batch.token_ids, batch.masked_token_ids, batch.kept_patches)
        terms = loss(whole)
        torch.autograd.backward(terms.total, _upstream(terms.total, scale))
        return terms, whole
    device = batch.token_ids.device
    masked = 0 if batch.masked_token_ids is None else batch.masked_token_ids.shape[1]
    split = list(_split(batch.token_ids.shape[1], masked, micro_batches, device))
    model = network.module if isinstance(network, DistributedDataParallel) else network
    states, embedded = [], []
    for micro in split:
        states.append(rng_state(device))
        with torch.no_grad(), precision():
            embedded.append(model(*micro.inputs(batch)))
    afterwards = rng_state(device)

    whole = _leaves(embedded, torch.cat([micro.rows for micro in split]))
    terms = loss(whole)
    torch.autograd.backward(terms.total, _upstream(terms.total, scale))

    for place, (micro, state) in enumerate(zip(split, states, strict=True)):
        is_last = place == micro_batches - 1
        restore_rng(state, device)
        with nullcontext() if is_last else no_gradient_sync(network):
            with precision():
                output = network(*micro.inputs(batch))
            pairs = list(micro.gradients(output, whole))
            if is_last:  # scale and bias of the similarity belong to no micro-batch
                scalars = zip(output[4:], whole[4:], strict=True)
                pairs += [(own, _gradient(leaf)) for own, leaf in scalars if leaf is not None]
            trained = [(tensor, gradient) for tensor, gradient in pairs if tensor.requires_grad]  # no frozen tower
            torch.autograd.backward([tensor for tensor, _ in trained], [gradient for _, gradient in trained])
    restore_rng(afterwards, device)
    return terms, whole


def _upstream(total: Tensor, scale: float | Tensor) -> Tensor:
    """`scale`, or NaN if the loss is not finite here, so that all ranks see it in the gradient norm."""
    return scale + 0.0 * total.detach()


class _MicroBatch(NamedTuple):
    """Rows of the batch: of masked samples, and of all, masked ones first."""

    masked: Tensor
    rows: Tensor

    def inputs(self, batch: DeviceBatch) -> tuple[Tensor | Patches, Tensor, Tensor | None, Tensor | None]:
        images, token_ids = batch.images, batch.token_ids[:, self.rows]
        images = images.rows(self.rows) if isinstance(images, Patches) else images[self.rows]
        if len(self.masked) == 0 or batch.masked_token_ids is None or batch.kept_patches is None:
            return images, token_ids, None, None
        return images, token_ids, batch.masked_token_ids[:, self.masked], batch.kept_patches[self.masked]

    def gradients(self, output: ProLIPOutput, whole: ProLIPOutput) -> Iterator[tuple[Tensor, Tensor]]:
        rows_of = (self.rows, self.rows, self.masked, self.masked)
        for own, leaves, rows in zip(output[:4], whole[:4], rows_of, strict=True):
            if own is not None and leaves is not None:
                yield from ((one, _gradient(leaf)[..., rows, :]) for one, leaf in zip(own, leaves, strict=True))


def _split(items: int, masked: int, micro_batches: int, device: torch.device) -> Iterator[_MicroBatch]:
    """As equal as possible, in samples and in masked samples."""
    assert masked <= items
    assert 0 < micro_batches <= items
    first, other = 0, masked
    for place in range(micro_batches):
        size, num_masked = (total // micro_batches + (place < total % micro_batches) for total in (items, masked))
        of_masked = torch.arange(first, first + num_masked, device=device)
        others = torch.arange(other, other + size - num_masked, device=device)
        yield _MicroBatch(of_masked, torch.cat([of_masked, others]))
        first, other = first + num_masked, other + size - num_masked


def _leaves(outputs: Sequence[ProLIPOutput], rows: Tensor) -> ProLIPOutput:
    """Join embeddings in the order of the batch, as leaves of a new graph."""

    def tower(embeddings: Sequence[Gaussian | None], order: Tensor | slice) -> Gaussian | None:
        parts = [one for one in embeddings if one is not None]
        return Gaussian(*map(_leaf, concatenate(parts, -2).rows(order))) if parts else None

    image, text, masked_image, masked_text, scales, biases = zip(*outputs, strict=True)
    order, every = rows.argsort(), slice(None)
    whole_image, whole_text = tower(image, order), tower(text, order)
    assert whole_image is not None
    assert whole_text is not None
    return ProLIPOutput(
        image=whole_image,
        text=whole_text,
        masked_image=tower(masked_image, every),
        masked_text=tower(masked_text, every),
        logit_scale=_leaf(scales[0]),
        logit_bias=None if biases[0] is None else _leaf(biases[0]),
    )


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
