"""Floating-point operations of a training step.

A multiplication and an addition are two operations (FLOPs); only matrix products count, as in
`torch.utils.flop_counter`, whose figures these are.

Shapes: B samples of a process's step, the first M of them masked, C caption slots, L tokens, W width, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from prolip.data import MaskConfig
from prolip.models import ProLIP
from prolip.models.image_encoder import ImageEncoder
from prolip.models.text_encoder import TextEncoder
from prolip.models.transformer import Transformer


class StepFlops(NamedTuple):
    """FLOPs of a process's step."""

    forward: int
    """Both towers over whole and masked samples."""
    backward: int
    """Gradients of activations and of trained weights: twice the forward pass where everything is trained, save that
    pixels need none."""
    loss: int
    """Similarities of all pairs and their gradients."""
    recomputed: int
    """Blocks run again in the backward pass, and the first forward pass of accumulation."""

    @property
    def useful(self) -> int:
        """What the step needs by its mathematics: the numerator of model FLOPs utilisation (MFU)."""
        return self.forward + self.backward + self.loss

    @property
    def total(self) -> int:
        """What the device does."""
        return self.useful + self.recomputed


def step_flops(
    model: ProLIP,
    mask: MaskConfig | None,
    *,
    batch_size: int,
    slots: int = 1,
    world_size: int = 1,
    accumulate: int = 1,
    recompute_every: int = 0,
) -> StepFlops:
    """FLOPs of one process's training step.

    Args:
        model: the bare model, `blank` or not; what it trains is read from its parameters.
        mask: which samples are masked; None for none. `num_patches` is the model's, whatever stands there.
        batch_size: B, samples of this process.
        slots: C, caption slots.
        world_size: processes whose texts are compared with this one's images.
        accumulate: parts of the step; more than one costs a forward pass.
        recompute_every: every n-th block of a tower runs again in the backward pass instead of being kept; 0 for none.
    """
    masked = 0 if mask is None else int(batch_size * mask.masked_fraction)
    kept = 0 if mask is None else int(model.config.vision.num_patches * mask.keep_ratio)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tally = _Tally(trained, recompute_every)
    tally.image_tower(
        model.visual, model.config.vision.num_patches, items=batch_size, calls=min(accumulate, batch_size)
    )
    if masked:
        tally.image_tower(model.visual, kept, items=masked, calls=min(accumulate, masked))
    tally.text_tower(model.text, items=slots * (batch_size + masked))
    # Of every pair the similarity, and what it gives the image's mean and the text's.
    pairs = slots * batch_size * batch_size * world_size
    return StepFlops(
        forward=tally.forward,
        backward=tally.backward,
        loss=3 * _matmul(pairs, model.config.embed_dim, 1),
        recomputed=(tally.forward if accumulate > 1 else 0) + tally.recomputed,
    )


def _matmul(rows: int, shared: int, columns: int) -> int:
    return 2 * rows * shared * columns


@dataclass
class _Tally:
    """FLOPs added up product by product, from the bottom of a network to its top."""

    trained: set[str]
    """Names of the trained parameters."""
    recompute_every: int
    forward: int = 0
    backward: int = 0
    recomputed: int = 0
    """What the blocks that run again repeat."""
    reached: bool = field(default=False, init=False)
    """Whether what goes into the next product depends on a trained parameter, and so needs a gradient."""

    def passes(self, prefixes: Iterable[str]) -> None:
        """Parameters that come in without a product: norms, positions, special tokens."""
        names = tuple(prefixes)
        self.reached = self.reached or any(name.startswith(names) for name in self.trained)

    def linear(self, weight: str, flops: int) -> None:
        """Activations times a weight: each of the two gradients costs as much again."""
        self.forward += flops
        self.backward += flops * (int(self.reached) + int(weight in self.trained))
        self.passes([weight, weight.removesuffix("weight") + "bias"])

    def activations(self, flops: int, *, both: bool = True) -> None:
        """Activations times activations, with a gradient for both or for one."""
        self.forward += flops
        self.backward += flops * (1 + int(both)) * int(self.reached)

    def blocks(self, prefix: str, stack: Transformer, items: int, tokens: int, last_rows: int) -> None:
        """All blocks; the last one computes `last_rows` of its outputs."""
        found = stack.blocks()
        for place, block in enumerate(found):
            start, name = self.forward, f"{prefix}.resblocks.{place}"
            rows = items * (last_rows if place == len(found) - 1 else tokens)
            every, (hidden, width) = items * tokens, block.mlp.c_fc.weight.shape
            self.passes([f"{name}.ln_1."])
            # Query, key and value are one matrix, two of its thirds for all tokens.
            of_query, of_rest = _matmul(rows, width, width), _matmul(every, width, 2 * width)
            self.linear(f"{name}.attn.in_proj_weight", of_query + of_rest)
            self.passes([f"{name}.attn.in_proj_bias"])
            self.activations(2 * _matmul(rows, width, tokens))
            self.linear(f"{name}.attn.out_proj.weight", _matmul(rows, width, width))
            self.passes([f"{name}.ls_1.", f"{name}.ln_2."])
            self.linear(f"{name}.mlp.c_fc.weight", _matmul(rows, width, hidden))
            self.linear(f"{name}.mlp.c_proj.weight", _matmul(rows, hidden, width))
            self.passes([f"{name}.ls_2."])
            if self.reached and self.recompute_every and place % self.recompute_every == 0:
                # Running a block again stops at the last number that the backward pass asks for.
                unasked = 0 if hasattr(block.ls_2, "gamma") else _matmul(rows, hidden, width)
                self.recomputed += self.forward - start - unasked

    def image_tower(self, tower: ImageEncoder, patches: int, *, items: int, calls: int) -> None:
        """The tower over `items` pictures of so many patches, in `calls` parts."""
        width, dim = tower.proj.shape
        self.reached = False
        self.linear("visual.conv1.weight", _matmul(items * patches, 3 * tower.patch**2, width))
        self.passes(["visual.class_embedding", "visual.unc_embedding", "visual.positional_embedding", "visual.ln_pre."])
        tokens = tower.num_specials + patches
        last_rows = tokens if tower.attn_pool is not None else tower.num_specials
        self.blocks("visual.transformer", tower.transformer, items, tokens, last_rows)
        self.passes(["visual.ln_post."])
        trunk = self.reached
        if tower.attn_pool is not None:
            self._pool(tower, items, patches, calls)
        self.linear("visual.proj", _matmul(items, width, dim))
        if tower.uncertainty_proj is not None:
            self.reached = trunk
            self.linear("visual.uncertainty_proj.weight", _matmul(items, width, dim))

    def _pool(self, tower: ImageEncoder, items: int, tokens: int, calls: int) -> None:
        assert tower.attn_pool is not None
        hidden, width = tower.attn_pool.mlp.c_fc.weight.shape
        pool = "visual.attn_pool"
        trunk, self.reached = self.reached, False
        # The query is the same for every picture of a call.
        self.passes([f"{pool}.latent"])
        self.linear(f"{pool}.attn.in_proj_weight", _matmul(calls, width, width))
        self.passes([f"{pool}.attn.in_proj_bias"])
        query, self.reached = self.reached, trunk
        self.linear(f"{pool}.attn.in_proj_weight", _matmul(items * tokens, width, 2 * width))
        self.passes([f"{pool}.attn.in_proj_bias"])
        self.activations(_matmul(items, width, tokens), both=query and self.reached)
        self.reached = self.reached or query
        self.activations(_matmul(items, tokens, width))
        self.linear(f"{pool}.attn.out_proj.weight", _matmul(items, width, width))
        self.passes([f"{pool}.norm."])
        self.linear(f"{pool}.mlp.c_fc.weight", _matmul(items, width, hidden))
        self.linear(f"{pool}.mlp.c_proj.weight", _matmul(items, hidden, width))

    def text_tower(self, tower: TextEncoder, *, items: int) -> None:
        """The tower over `items` padded texts."""
        head = tower.text_projection
        is_linear = isinstance(head, torch.nn.Linear)
        dim, width = head.weight.shape if isinstance(head, torch.nn.Linear) else reversed(head.shape)
        tokens = tower.context_length + tower.num_specials
        self.reached = False
        self.passes(["text.token_embedding.", "text.cls_emb", "text.unc_emb", "text.positional_embedding"])
        from_unc = tower.text_uncertainty_projection is not None and tower.log_var_source == "unc"
        last_rows = {"cls": 1 + int(from_unc), "last": 1 + tower.num_specials}.get(tower.pool_type, tokens)
        self.blocks("text.transformer", tower.transformer, items, tokens, last_rows)
        self.passes(["text.ln_final."])
        trunk = self.reached
        self.linear(f"text.text_projection{'.weight' if is_linear else ''}", _matmul(items, width, dim))
        if tower.text_uncertainty_projection is not None:
            self.reached = trunk if from_unc else self.reached
            read = width if from_unc else dim
            self.linear("text.text_uncertainty_projection.weight", _matmul(items, read, dim))
