"""Memory of a training step: what lies there between steps, and what the forward pass keeps for the backward pass.

An estimate, within a tenth of what torch keeps. It knows nothing of what the allocator wastes, what kernels borrow and
what a compiled graph saves: leave part of a card free.

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

_SINGLE = 4
"""Bytes of a number of weights, gradients, moments, norms and of what blocks are added to."""


class StepMemory(NamedTuple):
    """Bytes on one process's device."""

    weights: int
    """This process's weights, and their average where there is one."""
    gradients: int
    """Of the trained weights."""
    moments: int
    """AdamW's two."""
    rounded: int
    """Weights in the type that matrices are multiplied in; under "fsdp" those of one block, or of all that were
    gathered."""
    activations: int
    """What the forward pass keeps of all samples that are embedded at once, pictures included."""
    items: int
    """Samples that are embedded at once."""

    @property
    def state(self) -> int:
        """Bytes whatever the batch."""
        return self.weights + self.gradients + self.moments + self.rounded

    @property
    def per_sample(self) -> int:
        """Bytes that one sample adds."""
        return self.activations // self.items

    @property
    def total(self) -> int:
        """All of it."""
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
    fused: bool = True,
) -> StepMemory:
    """Memory of one process's training step.

    Args:
        model: the bare model, `prolip.train.cost.blank` or not; what it trains is read from its parameters.
        mask: which samples are masked; None for none.
        batch_size: samples of this process.
        slots: caption slots.
        low: whether matrices are multiplied in 16 bits.
        accumulate: parts of the step, of which one is kept at a time.
        recompute_every: every n-th block of a tower keeps its input alone; 0 for none.
        shared_by: processes that share every tensor ("fsdp"); 1 where each has them all.
        reshard: with sharing, whether a gathered block is given up until the backward pass.
        average: whether averaged weights are kept.
        fused: whether attention keeps no scores of all pairs of tokens, as on a GPU.
    """
    parameters = list(model.parameters())
    trained = sum(one.numel() for one in parameters if one.requires_grad)
    every = sum(one.numel() for one in parameters)
    number = 2 if low else _SINGLE
    items = -(-batch_size // accumulate)
    masked = 0 if mask is None else -(-int(batch_size * mask.masked_fraction) // accumulate)
    kept = 0 if mask is None else int(model.config.vision.num_patches * mask.keep_ratio)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    image = _Tower("visual.transformer", model.visual.transformer, names, number, fused, recompute_every)
    text = _Tower("text.transformer", model.text.transformer, names, number, fused, recompute_every)
    pixels = 3 * model.visual.patch**2 * model.config.vision.num_patches
    activations = items * (pixels * number + image.pictures(model.visual, model.config.vision.num_patches))
    activations += masked * image.pictures(model.visual, kept)
    activations += slots * (items + masked) * text.texts(model.text)
    return StepMemory(
        weights=_SINGLE * every * (1 + int(average)) // shared_by,
        gradients=_SINGLE * trained // shared_by,
        moments=2 * _SINGLE * trained // shared_by,
        rounded=_rounded(model, number, shared_by, reshard),
        activations=activations,
        items=items,
    )


def _rounded(model: ProLIP, number: int, shared_by: int, reshard: bool) -> int:
    blocks = [block for tower in (model.visual, model.text) for block in tower.transformer.blocks()]
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    if shared_by > 1:
        # A block's backward pass has the next one gathered already.
        return number * (2 * max(sizes) if reshard else sum(sizes))
    return 0 if number == _SINGLE else number * sum(sizes)


@dataclass(frozen=True)
class _Tower:
    """Bytes that one item leaves behind in a tower."""

    prefix: str
    stack: Transformer
    trained: set[str]
    number: int
    """Bytes of a number that matrices are multiplied in."""
    fused: bool
    recompute_every: int

    def pictures(self, tower: ImageEncoder, patches: int) -> int:
        """One picture of so many patches."""
        tokens = tower.num_specials + patches
        width = tower.conv1.out_channels
        trained = {name for name in self.trained if name.startswith("visual.")}
        before = [
            name
            for name in trained
            if not name.startswith(("visual.transformer.", "visual.ln_post.", "visual.attn_pool."))
        ]
        before = [name for name in before if not name.startswith(("visual.proj", "visual.uncertainty_proj."))]
        patched = 3 * tower.patch**2 * patches * self.number if "visual.conv1.weight" in trained else 0
        normed = 0 if isinstance(tower.ln_pre, nn.Identity) or not before else tokens * width * _SINGLE
        pooled = tower.attn_pool is not None
        reached = bool(before)
        inner = self._blocks(tokens, tokens if pooled else tower.num_specials, width, reached)
        pool = 4 * patches * width * _SINGLE if pooled and trained else 0
        return patched + normed + inner + pool

    def texts(self, tower: TextEncoder) -> int:
        """One padded text."""
        tokens = tower.context_length + tower.num_specials
        width = tower.token_embedding.embedding_dim
        from_unc = tower.text_uncertainty_projection is not None and tower.log_var_source == "unc"
        rows = {"cls": 1 + int(from_unc), "last": 1 + tower.num_specials}.get(tower.pool_type, tokens)
        inputs = ("text.token_embedding.", "text.cls_emb", "text.unc_emb", "text.positional_embedding")
        return self._blocks(tokens, rows, width, any(name.startswith(inputs) for name in self.trained))

    def _blocks(self, tokens: int, last_rows: int, width: int, reached: bool) -> int:
        """All blocks, and the outputs that the last norm keeps."""
        total = transient = 0
        blocks = self.stack.blocks()
        for place, block in enumerate(blocks):
            rows = last_rows if place == len(blocks) - 1 else tokens
            own = any(name.startswith(f"{self.prefix}.resblocks.{place}.") for name in self.trained)
            if not (reached or own):
                continue
            reached = True
            again = self.recompute_every > 0 and place % self.recompute_every == 0
            kept = self._block(block, tokens, rows, width, own, again)
            if again:
                total += tokens * width * _SINGLE
                transient = max(transient, kept - tokens * width * _SINGLE)
            else:
                total += kept
        return total + transient + last_rows * width * _SINGLE * int(reached)

    def _block(self, block: Block, tokens: int, rows: int, width: int, own: bool, again: bool) -> int:
        """One block: what its two norms take, its products' factors, its activation's input."""
        hidden = block.mlp.c_fc.out_features
        scales = sum(isinstance(one, LayerScale) for one in (block.ls_1, block.ls_2))
        # A product by a weight keeps its input for the weight's gradient alone.
        inputs = (tokens + (rows if rows < tokens else 0) + 2 * rows) * width if own else 0
        # A GELU is computed again, unless the whole block is.
        if own and (again or block.mlp.activation == "quick"):
            inputs += rows * hidden
        attended = (2 * tokens + rows) * width + (rows * width if self.fused else block.attn.heads * rows * tokens)
        # Two factors of a quick GELU, the input of the others.
        acted = rows * hidden * (2 if block.mlp.activation == "quick" else 1)
        scaled = scales * rows * width if own else 0
        if self.fused and own:
            inputs -= rows * width  # the attention's output is the next product's input
        return (tokens + rows) * width * _SINGLE + (inputs + attended + acted + scaled) * self.number
