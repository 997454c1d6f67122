"""Estimate the device memory of a training step: weights, gradients, optimizer state and activations.

The estimate is within 10 % of what torch keeps. It leaves out fragmentation, temporary buffers of kernels and the
savings of a compiled graph, so leave part of the GPU's memory free.

Shapes: L tokens, W width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from prolip.data import MaskConfig
from prolip.models import ProLIP
from prolip.models.image_encoder import ImageEncoder
from prolip.models.text_encoder import TextEncoder
from prolip.models.transformer import Block, LayerScale, Transformer
from prolip.train.optim import is_hidden

_FP32_BYTES = 4
"""Bytes per value of weights, gradients, moments, norms and the residual stream."""
_AFTER_INPUTS = ("transformer.", "ln_post.", "attn_pool.", "proj", "uncertainty_proj.")
"""Parameters of the image tower that do not change the input of its first block."""


class StepMemory(NamedTuple):
    """Bytes on one process's device."""

    weights: int
    """This process's weights, and their moving average if there is one."""
    gradients: int
    """Gradients of the trained weights."""
    moments: int
    """The two moments of AdamW, or the one of Muon."""
    cast_weights: int
    """Copies of weights in the dtype of matrix products; under "fsdp" two blocks, or all blocks without resharding."""
    activations: int
    """Activations that the forward pass keeps for the samples of one part of the step, images included."""
    items: int
    """Samples of one part of the step."""

    @property
    def state(self) -> int:
        """Bytes that do not depend on the batch size."""
        return self.weights + self.gradients + self.moments + self.cast_weights

    @property
    def per_sample(self) -> int:
        """Bytes per sample."""
        return self.activations // self.items

    @property
    def total(self) -> int:
        """All bytes."""
        return self.state + self.activations


def step_memory(
    model: ProLIP,
    mask: MaskConfig | None,
    *,
    batch_size: int,
    slots: int = 1,
    low: bool = True,
    accumulate: int = 1,
    recompute_every: int = 0,
    shared_by: int = 1,
    reshard: bool = True,
    average: bool = False,
    muon: bool = False,
) -> StepMemory:
    """Estimate the memory of one process's training step on a GPU: blocks keep no attention weights.

    Args:
        model: the unwrapped model, on any device. `requires_grad` says which parameters are trained.
        mask: which samples are masked; None for none.
        batch_size: samples of this process.
        slots: caption slots.
        low: whether matrix products are in 16 bits.
        accumulate: micro-batches; the activations of one are kept at a time.
        recompute_every: every n-th block of a tower keeps only its input; 0 for none.
        shared_by: processes that each tensor is sharded over ("fsdp"); 1 if every process has all of it.
        reshard: with "fsdp", whether a gathered block is freed until the backward pass.
        average: whether a moving average of the weights is kept.
        muon: whether Muon trains the matrices of the blocks: it keeps one moment for them, AdamW two.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = set(named)
    trained = sum(parameter.numel() for parameter in named.values())
    every = sum(parameter.numel() for parameter in model.parameters())
    hidden = sum(parameter.numel() for name, parameter in named.items() if is_hidden(name, parameter.ndim))
    moments = 2 * trained - (hidden if muon else 0)
    value_bytes = 2 if low else _FP32_BYTES
    items = -(-batch_size // accumulate)
    masked = 0 if mask is None else -(-int(batch_size * mask.masked_fraction) // accumulate)
    kept = 0 if mask is None else int(model.config.vision.num_patches * mask.keep_ratio)
    image = _Tower("visual.transformer", model.visual.transformer, names, value_bytes, recompute_every)
    text = _Tower("text.transformer", model.text.transformer, names, value_bytes, recompute_every)
    pixels = 3 * model.visual.patch**2 * model.config.vision.num_patches
    activations = items * (pixels * value_bytes + image.per_image(model.visual, model.config.vision.num_patches))
    activations += masked * image.per_image(model.visual, kept)
    activations += slots * (items + masked) * text.per_text(model.text)
    return StepMemory(
        weights=_FP32_BYTES * every * (1 + int(average)) // shared_by,
        gradients=_FP32_BYTES * trained // shared_by,
        moments=_FP32_BYTES * moments // shared_by,
        cast_weights=_cast_weights(model, value_bytes, shared_by, reshard),
        activations=activations,
        items=items,
    )


def _cast_weights(model: ProLIP, value_bytes: int, shared_by: int, reshard: bool) -> int:
    blocks = [block for tower in (model.visual, model.text) for block in tower.transformer.blocks()]
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    if shared_by > 1:
        # During a block's backward pass the next block is gathered already.
        return value_bytes * (2 * max(sizes) if reshard else sum(sizes))
    return 0 if value_bytes == _FP32_BYTES else value_bytes * sum(sizes)


@dataclass(frozen=True)
class _Tower:
    """Counts the bytes that a tower keeps per item."""

    prefix: str
    stack: Transformer
    trained: set[str]
    value_bytes: int
    """Bytes per value in matrix products."""
    recompute_every: int

    def per_image(self, tower: ImageEncoder, patches: int) -> int:
        """Bytes per image of `patches` patches."""
        tokens, width = tower.num_specials + patches, tower.conv1.out_channels
        trained = {name for name in self.trained if name.startswith("visual.")}
        needs_grad = any(not name.removeprefix("visual.").startswith(_AFTER_INPUTS) for name in trained)
        patched = 3 * tower.patch**2 * patches * self.value_bytes if "visual.conv1.weight" in trained else 0
        normed = 0 if isinstance(tower.ln_pre, nn.Identity) or not needs_grad else tokens * width * _FP32_BYTES
        pooled = tower.attn_pool is not None
        inner = self._blocks(tokens, tokens if pooled else tower.num_specials, width, needs_grad)
        pool = 4 * patches * width * _FP32_BYTES if pooled and trained else 0
        return patched + normed + inner + pool

    def per_text(self, tower: TextEncoder) -> int:
        """Bytes per padded text."""
        tokens, width = tower.context_length + tower.num_specials, tower.token_embedding.embedding_dim
        from_unc = tower.text_uncertainty_projection is not None and tower.log_var_source == "unc"
        rows = {"cls": 1 + int(from_unc), "last": 1 + tower.num_specials}.get(tower.pool_type, tokens)
        inputs = ("text.token_embedding.", "text.cls_emb", "text.unc_emb", "text.positional_embedding")
        return self._blocks(tokens, rows, width, any(name.startswith(inputs) for name in self.trained))

    def _blocks(self, tokens: int, last_rows: int, width: int, needs_grad: bool) -> int:
        """Bytes that all blocks and the last norm keep."""
        total = transient = 0
        blocks = self.stack.blocks()
        for place, block in enumerate(blocks):
            rows = last_rows if place == len(blocks) - 1 else tokens
            trained = any(name.startswith(f"{self.prefix}.resblocks.{place}.") for name in self.trained)
            if not (needs_grad or trained):
                continue
            needs_grad = True
            recomputed = self.recompute_every > 0 and place % self.recompute_every == 0
            kept = self._block(block, tokens, rows, width, trained, recomputed)
            if recomputed:
                total += tokens * width * _FP32_BYTES
                transient = max(transient, kept - tokens * width * _FP32_BYTES)
            else:
                total += kept
        return total + transient + last_rows * width * _FP32_BYTES * int(needs_grad)

    def _block(self, block: Block, tokens: int, rows: int, width: int, trained: bool, recomputed: bool) -> int:
        """Bytes of one block: inputs of its two norms, factors of its products, input of its activation function."""
        hidden = block.mlp.c_fc.out_features
        scales = sum(isinstance(scale, LayerScale) for scale in (block.ls_1, block.ls_2))
        # A product with a weight keeps its input only for the weight's gradient.
        inputs = (tokens + (rows if rows < tokens else 0) + 2 * rows) * width if trained else 0
        # The output of a GELU is recomputed, unless the whole block is.
        if trained and (recomputed or block.mlp.activation == "quick"):
            inputs += rows * hidden
        attention = 2 * (tokens + rows) * width
        # A quick GELU keeps its two factors, the others keep their input.
        activation = rows * hidden * (2 if block.mlp.activation == "quick" else 1)
        scaled = scales * rows * width if trained else 0
        if trained:
            inputs -= rows * width  # the output of attention is also the input of the next product
        return (tokens + rows) * width * _FP32_BYTES + (inputs + attention + activation + scaled) * self.value_bytes
