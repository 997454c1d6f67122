"""The gradient of a batch in parts: exact for a loss that compares every sample with every other one.

Embeddings of all parts are computed first and keep no graph; the loss of the whole batch then says what each
embedding's gradient is; each part is embedded once more, with the same draws, and takes its embeddings' gradients back
to the parameters. Memory for one part's activations and the whole batch's embeddings, and one forward pass more.

Shapes: B samples of a batch (this rank's), the first M of them masked, C caption slots, L tokens, K kept patches,
D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from prolip.checkpoint import restore_rng, rng_state
from prolip.gaussian import Gaussian, concatenate
from prolip.losses import LossTerms
from prolip.models import ProLIPOutput
from prolip.train.parallel import bare, gradients_stay


class Trainable(Protocol):
    """What a step reads of a batch; `prolip.data.device.DeviceBatch` is one."""

    @property
    def images(self) -> Tensor:
        """[B, 3, height, width]"""

    @property
    def token_ids(self) -> Tensor:
        """[C, B, L]"""

    @property
    def masked_token_ids(self) -> Tensor | None:
        """[C, M, L]"""

    @property
    def kept_patches(self) -> Tensor | None:
        """[M, K]"""


def backward(
    network: nn.Module,
    loss: Callable[[ProLIPOutput], LossTerms],
    batch: Trainable,
    *,
    parts: int = 1,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    scale: float | Tensor = 1.0,
) -> tuple[LossTerms, ProLIPOutput]:
    """The loss terms and embeddings of a batch, whose gradients are added to those of the parameters.

    Args:
        network: a ProLIP model, or one wrapped for data parallelism.
        loss: the loss of the whole batch.
        batch: this rank's samples.
        parts: micro-batches; the gradient does not depend on them.
        precision: the context of every forward pass.
        scale: a factor on the gradients, the same on all ranks.
    """
    masked = 0 if batch.masked_token_ids is None else batch.masked_token_ids.shape[1]
    if parts == 1:
        with precision():
            whole: ProLIPOutput = network(batch.images, batch.token_ids, batch.masked_token_ids, batch.kept_patches)
        terms = loss(whole)
        torch.autograd.backward(terms.total, _upstream(terms.total, scale))
        return terms, whole
    rows = list(_rows(len(batch.images), masked, parts))
    model = bare(network)
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
        with nullcontext() if last else gradients_stay(network):
            with precision():
                output = network(*part.inputs(batch))
            # The factor and the bias of all similarities belong to no part; one takes their gradients.
            torch.autograd.backward(*_paired(output, part.gradients(whole), whole if last else None))
    restore_rng(afterwards, device)
    return terms, whole


def _upstream(total: Tensor, scale: float | Tensor) -> Tensor:
    """The upstream gradient of the loss: `scale`, or NaN where the loss is not finite.

    So a loss that is not finite on one rank makes the averaged gradient NaN, and all ranks see it in the gradient norm.
    """
    return scale + 0.0 * total.detach()


@dataclass(frozen=True)
class _Rows:
    """A part's rows: some of the masked ones, which come first as in every batch, and some of the others."""

    masked: slice
    others: slice
    num_masked: int

    def of(self, tensor: Tensor, dim: int) -> Tensor:
        """The rows along `dim`."""
        index = (slice(None),) * (dim % tensor.ndim)
        return torch.cat([tensor[(*index, self.masked)], tensor[(*index, self.others)]], dim)

    def inputs(self, batch: Trainable) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The part's images [b, 3, height, width], token ids, masked token ids and kept patches."""
        images, token_ids = self.of(batch.images, 0), self.of(batch.token_ids, 1)
        if self.num_masked == 0 or batch.masked_token_ids is None or batch.kept_patches is None:
            return images, token_ids, None, None
        return images, token_ids, batch.masked_token_ids[:, self.masked], batch.kept_patches[self.masked]

    def gradients(self, whole: ProLIPOutput) -> _Embeddings:
        """The part's rows of what the loss gave the embeddings of the batch."""
        image, text = (
            Gaussian(*(self.of(_gradient(leaf), -2) for leaf in tower)) for tower in (whole.image, whole.text)
        )
        if whole.masked_image is None or whole.masked_text is None or self.num_masked == 0:
            return _Embeddings(image, text, None, None)
        masked_image, masked_text = (
            Gaussian(*(_gradient(leaf)[..., self.masked, :] for leaf in tower))
            for tower in (whole.masked_image, whole.masked_text)
        )
        return _Embeddings(image, text, masked_image, masked_text)


class _Embeddings(NamedTuple):
    """The towers of `ProLIPOutput`."""

    image: Gaussian
    text: Gaussian
    masked_image: Gaussian | None
    masked_text: Gaussian | None


def _rows(items: int, masked: int, parts: int) -> Iterator[_Rows]:
    """Parts as equal as can be, in samples and in masked ones; the first have one more where it does not come out."""
    assert masked <= items
    assert 0 < parts <= items
    first, other = 0, masked
    for place in range(parts):
        size, of_masked = (total // parts + (place < total % parts) for total in (items, masked))
        yield _Rows(slice(first, first + of_masked), slice(other, other + size - of_masked), of_masked)
        first, other = first + of_masked, other + size - of_masked


def _joined(parts: Sequence[ProLIPOutput], rows: Sequence[_Rows]) -> ProLIPOutput:
    """The embeddings of the batch, in its order."""

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
    """The same values, of which the loss gives gradients and no more."""

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
    output: ProLIPOutput, gradients: _Embeddings, whole: ProLIPOutput | None
) -> tuple[list[Tensor], list[Tensor]]:
    """The part's embeddings and their gradients, and those of the two scalars where `whole` is given."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for tower, gradient in zip(output[:4], gradients, strict=True):
        if tower is not None and gradient is not None:
            pairs += zip(tower, gradient, strict=True)
    if whole is not None:
        pairs.append((output.logit_scale, _gradient(whole.logit_scale)))
        if output.logit_bias is not None and whole.logit_bias is not None:
            pairs.append((output.logit_bias, _gradient(whole.logit_bias)))
    # What a frozen tower gives takes no gradient.
    pairs = [(tensor, gradient) for tensor, gradient in pairs if tensor.requires_grad]
    return [tensor for tensor, _ in pairs], [gradient for _, gradient in pairs]
