"""What a training step costs before it is taken: parameters, floating-point operations, what a device could do.

Everything follows from the sizes of a model and from which of its parameters are trained; `blank` makes a model for the
purpose that has no memory. A multiplication and an addition are two operations (FLOPs); only matrix products count, as
in `torch.utils.flop_counter`, whose figures these are.

Shapes: B samples of a process's step, the first M of them masked, C caption slots, L tokens, W width, D embedding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from prolip.data import MaskConfig
from prolip.models import ModelConfig, ProLIP
from prolip.models.image_encoder import ImageEncoder
from prolip.models.locking import LOG_VAR_HEADS, UNC_VECTORS
from prolip.models.text_encoder import TextEncoder
from prolip.models.transformer import Transformer

Arithmetic = Literal["fp32", "tf32", "bf16", "fp16"]
"""What matrices are multiplied in; "tf32" is fp32 with shortened factors."""


def blank(config: ModelConfig) -> ProLIP:
    """A model of that architecture on the meta device: sizes and names, no memory, no numbers."""
    with torch.device("meta"):
        return ProLIP(config)


# ---- Parameters -----------------------------------------------------------------------------------------------------


class Parameters(NamedTuple):
    """Numbers of parameters by part of the model; `trained` are those among all of them that need gradients."""

    image_tower: int
    """Patches, positions, [CLS], blocks, norms and the mean's head, the attention pool included."""
    text_tower: int
    """As in the image tower, without the token table."""
    token_table: int
    """Rows of the vocabulary."""
    uncertainty: int
    """[UNC] vectors and log-variance heads of both towers (their position rows belong to the towers)."""
    similarity: int
    """Scale and bias."""
    trained: int
    """Those that a step changes."""

    @property
    def total(self) -> int:
        """All parameters."""
        return self.image_tower + self.text_tower + self.token_table + self.uncertainty + self.similarity


def count_parameters(model: ProLIP) -> Parameters:
    """The parameters of a model, `blank` or not, by part."""
    parts = dict.fromkeys(Parameters._fields, 0)
    for name, parameter in model.named_parameters():
        if name.startswith((*UNC_VECTORS, *LOG_VAR_HEADS)):
            part = "uncertainty"
        elif name == "text.token_embedding.weight":
            part = "token_table"
        else:
            part = {"visual": "image_tower", "text": "text_tower"}.get(name.split(".")[0], "similarity")
        parts[part] += parameter.numel()
        parts["trained"] += parameter.numel() if parameter.requires_grad else 0
    return Parameters(**parts)


# ---- Floating-point operations --------------------------------------------------------------------------------------


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


# ---- Devices --------------------------------------------------------------------------------------------------------

# Dense TFLOPS with single-precision sums, by words of the name that CUDA gives a card; the first row whose words all
# stand in it is taken. From NVIDIA's data sheets (A100 of June 2021, H100 and H200 of 2024, L40S, L40, L4, A10, A30,
# A40, T4, V100 of January 2020, HGX B200), where a figure "with sparsity" is halved, and for GeForce and workstation
# cards from the whitepapers of the GA102, AD102 and GB202 chips.
_PEAKS: tuple[tuple[tuple[str, ...], dict[Arithmetic, float]], ...] = (
    (("b200",), {"bf16": 2250, "fp16": 2250, "tf32": 1125, "fp32": 75}),
    (("h200", "nvl"), {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}),
    (("h200",), {"bf16": 989.5, "fp16": 989.5, "tf32": 494.5, "fp32": 67}),
    (("h100", "nvl"), {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}),
    (("h100", "pcie"), {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51}),
    (("h100",), {"bf16": 989.5, "fp16": 989.5, "tf32": 494.5, "fp32": 67}),
    (("a100",), {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5}),
    (("a40",), {"bf16": 149.7, "fp16": 149.7, "tf32": 74.8, "fp32": 37.4}),
    (("a30",), {"bf16": 165, "fp16": 165, "tf32": 82, "fp32": 10.3}),
    (("a10",), {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2}),
    (("l40s",), {"bf16": 362.05, "fp16": 362.05, "tf32": 183, "fp32": 91.6}),
    (("l40",), {"bf16": 181.05, "fp16": 181.05, "tf32": 90.5, "fp32": 90.5}),
    (("l4",), {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3}),
    (("v100", "pcie"), {"fp16": 112, "fp32": 14}),
    (("v100",), {"fp16": 125, "fp32": 15.7}),
    (("t4",), {"fp16": 65, "fp32": 8.1}),
    (("rtx", "5090"), {"bf16": 209.5, "fp16": 209.5, "tf32": 104.8, "fp32": 104.8}),
    (("rtx", "4090"), {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6}),
    (("rtx", "3090"), {"bf16": 71, "fp16": 71, "tf32": 35.6, "fp32": 35.6}),
    (("rtx", "6000", "ada"), {"bf16": 364.2, "fp16": 364.2, "tf32": 182.1, "fp32": 91.1}),
    (("rtx", "a6000"), {"bf16": 154.8, "fp16": 154.8, "tf32": 77.4, "fp32": 38.7}),
)
# Another card, or part of one, by nearly the same name.
_OTHER_CARDS = frozenset({"laptop", "ti", "super", "d", "mig", "max", "mobile"})


def peak_flops(device_name: str, precision: Arithmetic) -> float | None:
    """FLOPs a second that a device could do at most; None for one that is not in the table, or not in that precision.

    Args:
        device_name: as `torch.cuda.get_device_name` gives it.
        precision: what matrices are multiplied in. fp32 is the card's own; with `allow_tf32` it is "tf32".
    """
    words = set(re.split(r"[^a-z0-9]+", device_name.lower()))
    if words & _OTHER_CARDS:
        return None
    for names, peaks in _PEAKS:
        if words.issuperset(names):
            peak = peaks.get(precision)
            return None if peak is None else peak * 1e12
    return None
