"""Gradient accumulation that is exact although the loss compares every sample with every other one.

First all micro-batches are embedded without gradient. The loss of the whole batch then gives the gradient of every
embedding. Each micro-batch is embedded again, with the same random numbers, and its embeddings' gradients go back to
the parameters. This needs memory for the activations of one micro-batch, and one more forward pass.

Shapes: B samples of this rank, of which the first M are masked, C caption slots, L tokens, K kept patches, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prolip.checkpoint import restore_rng, rng_state
from prolip.data.device import DeviceBatch
from prolip.gaussian import Gaussian, concatenate
from prolip.losses import LossTerms
from prolip.models import ProLIPOutput
from prolip.train.parallel import no_gradient_sync, unwrap


def backward(
    network: nn.Module,
    loss: Callable[[ProLIPOutput], LossTerms],
    batch: DeviceBatch,
    *,
    parts: int = 1,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    scale: float | Tensor = 1.0,
) -> tuple[LossTerms, ProLIPOutput]:
    """Add the gradients of a batch to those of the parameters; returns its loss terms and embeddings.

    Args:
        network: a ProLIP model, or one wrapped for data parallelism.
        loss: the loss of the whole batch.
        batch: this rank's samples.
        parts: number of micro-batches; the gradient does not depend on it.
        precision: context of every forward pass.
        scale: factor on the gradients, the same on all ranks.
    """
    masked = 0 if batch.masked_token_ids is None else batch.masked_token_ids.shape[1]
    if parts == 1:
        with precision():
            whole: ProLIPOutput = network(batch.images, batch.token_ids, batch.masked_token_ids, batch.kept_patches)
        terms = loss(whole)
        torch.autograd.backward(terms.total, _upstream(terms.total, scale))
        return terms, whole
    rows = list(_rows(len(batch.images), masked, parts))
    model = unwrap(network)
    device = batch.images.device
    draws, embedded = [], []
    for part in rows:
        draws.append(rng_state(device))
        with torch.no_grad(), precision():
            embedded.append(model(*part.inputs(batch)))
    afterwards = rng_state(device)

    whole = _leaves(_joined(embedded, rows))
    terms = loss(whole)
    torch.autograd.backward(terms.total, _upstream(terms.total, scale))

    for place, (part, state) in enumerate(zip(rows, draws, strict=True)):
        last = place == parts - 1
        restore_rng(state, device)
        with nullcontext() if last else no_gradient_sync(network):
            with precision():
                output = network(*part.inputs(batch))
            # Scale and bias of the similarity belong to no micro-batch: the last one takes their gradients.
            torch.autograd.backward(*_paired(output, part.gradients(whole), whole if last else None))
    restore_rng(afterwards, device)
    return terms, whole


def _upstream(total: Tensor, scale: float | Tensor) -> Tensor:
    """Return the upstream gradient of the loss: `scale`, or NaN if the loss is not finite.

    So a loss that is not finite on one rank makes the averaged gradient NaN, and all ranks see it in the gradient norm.
    """
    return scale + 0.0 * total.detach()


@dataclass(frozen=True)
class _Rows:
    """The rows of a micro-batch: some of the masked samples, which come first in a batch, and some of the others."""

    masked: slice
    others: slice
    num_masked: int

    def of(self, tensor: Tensor, dim: int) -> Tensor:
        """Select the rows along `dim`."""
        index = (slice(None),) * (dim % tensor.ndim)
        return torch.cat([tensor[(*index, self.masked)], tensor[(*index, self.others)]], dim)

    def inputs(self, batch: DeviceBatch) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Images, token ids, masked token ids and kept patches of the micro-batch."""
        images, token_ids = self.of(batch.images, 0), self.of(batch.token_ids, 1)
        if self.num_masked == 0 or batch.masked_token_ids is None or batch.kept_patches is None:
            return images, token_ids, None, None
        return images, token_ids, batch.masked_token_ids[:, self.masked], batch.kept_patches[self.masked]

    def gradients(self, whole: ProLIPOutput) -> list[Gaussian | None]:
        """Return the loss's gradients for the embeddings of the micro-batch, in the order of `ProLIPOutput`."""
        image, text = (
            Gaussian(*(self.of(_gradient(leaf), -2) for leaf in tower)) for tower in (whole.image, whole.text)
        )
        if whole.masked_image is None or whole.masked_text is None or self.num_masked == 0:
            return [image, text, None, None]
        masked_image, masked_text = (
            Gaussian(*(_gradient(leaf)[..., self.masked, :] for leaf in tower))
            for tower in (whole.masked_image, whole.masked_text)
        )
        return [image, text, masked_image, masked_text]


def _rows(items: int, masked: int, parts: int) -> Iterator[_Rows]:
    """Split a batch into micro-batches as equal as possible, in samples and in masked samples."""
    assert masked <= items
    assert 0 < parts <= items
    first, other = 0, masked
    for place in range(parts):
        size, of_masked = (total // parts + (place < total % parts) for total in (items, masked))
        yield _Rows(slice(first, first + of_masked), slice(other, other + size - of_masked), of_masked)
        first, other = first + of_masked, other + size - of_masked


def _joined(parts: Sequence[ProLIPOutput], rows: Sequence[_Rows]) -> ProLIPOutput:
    """Join the embeddings of all micro-batches in the order of the batch."""

    def whole(towers: Sequence[Gaussian]) -> Gaussian:
        pairs = list(zip(towers, rows, strict=True))
        first = [tower.rows(slice(0, part.num_masked)) for tower, part in pairs]
        return concatenate(first + [tower.rows(slice(part.num_masked, None)) for tower, part in pairs], -2)

    masked_images = [part.masked_image for part in parts if part.masked_image is not None]
    masked_texts = [part.masked_text for part in parts if part.masked_text is not None]
    return parts[0]._replace(
        image=whole([part.image for part in parts]),
        text=whole([part.text for part in parts]),
        masked_image=concatenate(masked_images, -2) if masked_images else None,
        masked_text=concatenate(masked_texts, -2) if masked_texts else None,
    )


def _leaves(output: ProLIPOutput) -> ProLIPOutput:
    """Copy the embeddings as leaves of a new graph, at which the backward pass of the loss ends."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().requires_grad_()

    def tower(embeddings: Gaussian) -> Gaussian:
        return Gaussian(leaf(embeddings.mean), leaf(embeddings.log_var))

    return ProLIPOutput(
        image=tower(output.image),
        text=tower(output.text),
        masked_image=None if output.masked_image is None else tower(output.masked_image),
        masked_text=None if output.masked_text is None else tower(output.masked_text),
        logit_scale=leaf(output.logit_scale),
        logit_bias=None if output.logit_bias is None else leaf(output.logit_bias),
    )


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _paired(
    output: ProLIPOutput, gradients: Sequence[Gaussian | None], whole: ProLIPOutput | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Pair the embeddings of a micro-batch with their gradients; with `whole`, also scale and bias."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for tower, gradient in zip(output[:4], gradients, strict=True):
        if tower is not None and gradient is not None:
            pairs += zip(tower, gradient, strict=True)
    if whole is not None:
        pairs.append((output.logit_scale, _gradient(whole.logit_scale)))
        if output.logit_bias is not None and whole.logit_bias is not None:
            pairs.append((output.logit_bias, _gradient(whole.logit_bias)))
    # Embeddings of a frozen tower have no gradient.
    pairs = [(tensor, gradient) for tensor, gradient in pairs if tensor.requires_grad]
    return [tensor for tensor, _ in pairs], [gradient for _, gradient in pairs]
