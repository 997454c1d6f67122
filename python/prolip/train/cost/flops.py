"""Count the floating-point operations (FLOPs) of a training step.

A multiply-add is two operations. Only matrix products count, and the numbers equal those of `torch.utils.flop_counter`.

Shapes: B samples of one process, the first M of them masked, C caption slots, L tokens, W width, D embedding.
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
    """FLOPs of one process's step."""

    forward: int
    """Both towers on whole and masked samples."""
    backward: int
    """Gradients of activations and trained weights: twice the forward pass if everything is trained, except that pixels
    need no gradient."""
    loss: int
    """Similarities of all pairs and their gradients."""
    recomputed: int
    """Blocks that run again in the backward pass, and the first forward pass of gradient accumulation."""

    @property
    def useful(self) -> int:
        """FLOPs without recomputation: the numerator of model FLOPs utilisation (MFU)."""
        return self.forward + self.backward + self.loss

    @property
    def total(self) -> int:
        """FLOPs that the device executes."""
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
    """Count the FLOPs of one process's training step.

    Args:
        model: the unwrapped model, on any device. `requires_grad` says which parameters are trained.
        mask: which samples are masked; None for none. Its `num_patches` is ignored in favour of the model's.
        batch_size: B, samples of this process.
        slots: C, caption slots.
        world_size: processes whose texts are compared with this one's images.
        accumulate: parts of the step; more than one costs a second forward pass.
        recompute_every: every n-th block of a tower is recomputed in the backward pass; 0 for none.
    """
    masked = 0 if mask is None else int(batch_size * mask.masked_fraction)
    kept = 0 if mask is None else int(model.config.vision.num_patches * mask.keep_ratio)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    counter = _Counter(trained, recompute_every)
    counter.image_tower(
        model.visual, model.config.vision.num_patches, items=batch_size, calls=min(accumulate, batch_size)
    )
    if masked:
        counter.image_tower(model.visual, kept, items=masked, calls=min(accumulate, masked))
    counter.text_tower(model.text, items=slots * (batch_size + masked))
    # For every pair: the similarity, its gradient for the image's mean, and its gradient for the text's mean.
    pairs = slots * batch_size * batch_size * world_size
    return StepFlops(
        forward=counter.forward,
        backward=counter.backward,
        loss=3 * _matmul(pairs, model.config.embed_dim, 1),
        recomputed=(counter.forward if accumulate > 1 else 0) + counter.recomputed,
    )


def _matmul(rows: int, shared: int, columns: int) -> int:
    return 2 * rows * shared * columns


@dataclass
class _Counter:
    """Adds up FLOPs product by product, from a network's input to its output."""

    trained: set[str]
    """Names of the trained parameters."""
    recompute_every: int
    forward: int = 0
    backward: int = 0
    recomputed: int = 0
    """FLOPs of blocks that run again in the backward pass."""
    needs_grad: bool = field(default=False, init=False)
    """Whether the current activations depend on a trained parameter, so that they need a gradient."""

    def add_parameters(self, prefixes: Iterable[str]) -> None:
        """Pass parameters that are not in a matrix product: norms, positions, special tokens."""
        names = tuple(prefixes)
        self.needs_grad = self.needs_grad or any(name.startswith(names) for name in self.trained)

    def linear(self, weight: str, flops: int) -> None:
        """Add a product of activations and a weight, and its bias. Each of the two gradients costs as much again."""
        self.forward += flops
        self.backward += flops * (int(self.needs_grad) + int(weight in self.trained))
        self.add_parameters([weight, weight.removesuffix("weight") + "bias"])

    def activations(self, flops: int, *, both: bool = True) -> None:
        """Add a product of two activations, with a gradient for both or for one."""
        self.forward += flops
        self.backward += flops * (1 + int(both)) * int(self.needs_grad)

    def blocks(self, prefix: str, stack: Transformer, items: int, tokens: int, last_rows: int) -> None:
        """Add all blocks. The last one computes only `last_rows` of its outputs."""
        found = stack.blocks()
        for place, block in enumerate(found):
            start, name = self.forward, f"{prefix}.resblocks.{place}"
            rows = items * (last_rows if place == len(found) - 1 else tokens)
            every, (hidden, width) = items * tokens, block.mlp.c_fc.weight.shape
            self.add_parameters([f"{name}.ln_1."])
            # Query, key and value share one matrix. The query is computed for `rows`, key and value for all tokens.
            query, key_value = _matmul(rows, width, width), _matmul(every, width, 2 * width)
            self.linear(f"{name}.attn.in_proj_weight", query + key_value)
            self.activations(2 * _matmul(rows, width, tokens))
            self.linear(f"{name}.attn.out_proj.weight", _matmul(rows, width, width))
            self.add_parameters([f"{name}.ls_1.", f"{name}.ln_2."])
            self.linear(f"{name}.mlp.c_fc.weight", _matmul(rows, width, hidden))
            self.linear(f"{name}.mlp.c_proj.weight", _matmul(rows, hidden, width))
            self.add_parameters([f"{name}.ls_2."])
            if self.needs_grad and self.recompute_every and place % self.recompute_every == 0:
                # Recomputation stops at the last value that the backward pass reads.
                unread = 0 if hasattr(block.ls_2, "gamma") else _matmul(rows, hidden, width)
                self.recomputed += self.forward - start - unread

    def image_tower(self, tower: ImageEncoder, patches: int, *, items: int, calls: int) -> None:
        """Add the image tower on `items` images of `patches` patches each, in `calls` forward passes."""
        width, dim = tower.proj.shape
        self.needs_grad = False
        self.linear("visual.conv1.weight", _matmul(items * patches, 3 * tower.patch**2, width))
        self.add_parameters(
            ["visual.class_embedding", "visual.unc_embedding", "visual.positional_embedding", "visual.ln_pre."]
        )
        tokens = tower.num_specials + patches
        last_rows = tokens if tower.attn_pool is not None else tower.num_specials
        self.blocks("visual.transformer", tower.transformer, items, tokens, last_rows)
        self.add_parameters(["visual.ln_post."])
        trunk = self.needs_grad
        if tower.attn_pool is not None:
            self._pool(tower, items, patches, calls)
        self.linear("visual.proj", _matmul(items, width, dim))
        if tower.uncertainty_proj is not None:
            self.needs_grad = trunk
            self.linear("visual.uncertainty_proj.weight", _matmul(items, width, dim))

    def _pool(self, tower: ImageEncoder, items: int, tokens: int, calls: int) -> None:
        assert tower.attn_pool is not None
        hidden, width = tower.attn_pool.mlp.c_fc.weight.shape
        pool = "visual.attn_pool"
        trunk, self.needs_grad = self.needs_grad, False
        # The query is computed once per forward pass, not per image.
        self.add_parameters([f"{pool}.latent"])
        self.linear(f"{pool}.attn.in_proj_weight", _matmul(calls, width, width))
        query, self.needs_grad = self.needs_grad, trunk
        self.linear(f"{pool}.attn.in_proj_weight", _matmul(items * tokens, width, 2 * width))
        self.activations(_matmul(items, width, tokens), both=query and self.needs_grad)
        self.needs_grad = self.needs_grad or query
        self.activations(_matmul(items, tokens, width))
        self.linear(f"{pool}.attn.out_proj.weight", _matmul(items, width, width))
        self.add_parameters([f"{pool}.norm."])
        self.linear(f"{pool}.mlp.c_fc.weight", _matmul(items, width, hidden))
        self.linear(f"{pool}.mlp.c_proj.weight", _matmul(items, hidden, width))

    def text_tower(self, tower: TextEncoder, *, items: int) -> None:
        """Add the text tower on `items` padded texts."""
        head = tower.text_projection
        is_linear = isinstance(head, torch.nn.Linear)
        dim, width = head.weight.shape if isinstance(head, torch.nn.Linear) else reversed(head.shape)
        tokens = tower.context_length + tower.num_specials
        self.needs_grad = False
        self.add_parameters(["text.token_embedding.", "text.cls_emb", "text.unc_emb", "text.positional_embedding"])
        from_unc = tower.text_uncertainty_projection is not None and tower.log_var_source == "unc"
        last_rows = {"cls": 1 + int(from_unc), "last": 1 + tower.num_specials}.get(tower.pool_type, tokens)
        self.blocks("text.transformer", tower.transformer, items, tokens, last_rows)
        self.add_parameters(["text.ln_final."])
        trunk = self.needs_grad
        self.linear(f"text.text_projection{'.weight' if is_linear else ''}", _matmul(items, width, dim))
        if tower.text_uncertainty_projection is not None:
            self.needs_grad = trunk if from_unc else self.needs_grad
            read = width if from_unc else dim
            self.linear("text.text_uncertainty_projection.weight", _matmul(items, read, dim))
