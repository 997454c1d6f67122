"""Count the floating-point operations (FLOPs) of a training step with `torch.utils.flop_counter`.

A multiply-add is two operations. Only matrix products count. The step runs on tensors without values (`FakeTensorMode`)
in a model of few blocks. FLOPs grow linearly with the number of equal blocks.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from operator import mul
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from prolip.data import MaskConfig
from prolip.models import ProLIP
from prolip.train.config import TrainConfig
from prolip.train.cost.parameters import trained_model


class StepFlops(NamedTuple):
    """FLOPs of one process's step."""

    forward: int
    """Both towers on whole and masked samples."""
    backward: int
    """Gradients of activations and trained weights."""
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
    """FLOPs of one process's training step.

    Args:
        model: the unwrapped model, on any device. `requires_grad` says which parameters are trained.
        mask: which samples are masked; None for none. Its `num_patches` is ignored in favour of the model's.
        batch_size: samples of this process.
        slots: caption slots.
        world_size: processes whose texts are compared with this one's images.
        accumulate: micro-batches; more than one costs a second forward pass.
        recompute_every: every n-th block of a tower is recomputed in the backward pass; 0 for none.
    """
    masked = 0 if mask is None else int(batch_size * mask.masked_fraction)
    once = _count(model, mask, masked, batch_size, slots, 0)
    again = _count(model, mask, masked, batch_size, slots, recompute_every) if recompute_every else once
    forward, backward, recomputed = once[0], once[1], again[1] - once[1]
    # For every pair: the similarity, its gradient for the image's mean, and its gradient for the text's mean.
    loss = 3 * 2 * slots * batch_size * batch_size * world_size * model.config.embed_dim
    return StepFlops(forward, backward, loss, recomputed + (forward if accumulate > 1 else 0))


def mean_step_flops(config: TrainConfig, world_size: int = 1) -> StepFlops:
    """FLOPs of a step of a run on one of its processes; with native images, of the mean step."""
    kinds = [
        step_flops(
            trained_model(kind),
            config.data.masking,
            batch_size=kind.batch_size // world_size,
            slots=len(config.data.captions),
            world_size=world_size,
            accumulate=config.accumulate,
            recompute_every=config.parallel.recompute_every,
        )
        for _, kind in config.kinds_of_step
    ]
    probs = [prob for prob, _ in config.kinds_of_step]
    return StepFlops(*(round(sum(map(mul, probs, part))) for part in zip(*kinds, strict=True)))


def _count(
    model: ProLIP, mask: MaskConfig | None, masked: int, batch_size: int, slots: int, recompute_every: int
) -> tuple[int, int]:
    """FLOPs of the forward and the backward pass, counted on two blocks of each group of equal ones."""
    groups = {tower: _equal_blocks(model, tower, recompute_every) for tower in ("visual", "text")}
    # The second block is counted for the rest of its group: the first one's input may need no gradient.
    places = {tower: [place for group in blocks for place in group[:2]] for tower, blocks in groups.items()}
    vision = replace(model.config.vision, layers=len(places["visual"]))
    text = replace(model.config.text, layers=len(places["text"]))
    kept = 0 if mask is None else int(vision.num_patches * mask.keep_ratio)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    def original(name: str) -> str:
        tower, *_ = name.split(".")
        return re.sub(r"(?<=resblocks\.)\d+", lambda number: str(places[tower][int(number[0])]), name)

    with FakeTensorMode(), torch.device("cpu"), FlopCounterMode(display=False) as counter:
        small = ProLIP(replace(model.config, vision=vision, text=text))
        small.visual.transformer.recompute_every = small.text.transformer.recompute_every = recompute_every
        for name, parameter in small.named_parameters():
            parameter.requires_grad_(original(name) in trained)
        images = torch.zeros(batch_size, 3, *vision.height_and_width)
        ids = torch.zeros(slots, batch_size, text.context_length, dtype=torch.long)
        views = (ids[:, :masked], torch.zeros(masked, kept, dtype=torch.long)) if masked else (None, None)
        outputs = tree_leaves(small(images, ids, *views))

        def counted() -> int:
            flops_of: dict[str, int] = {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
            total = flops_of.get("Global", 0)
            for tower, blocks in groups.items():
                for group in blocks:
                    second = places[tower].index(group[0]) + 1
                    total += max(0, len(group) - 2) * flops_of.get(f"ProLIP.{tower}.transformer.resblocks.{second}", 0)
            return total

        forward = counted()
        torch.autograd.backward([value.sum() for value in outputs if value is not None and value.requires_grad])
        return forward, counted() - forward


def _equal_blocks(model: ProLIP, tower: str, recompute_every: int) -> list[list[int]]:
    """Places of a tower's blocks, grouped by cost: neighbours that are trained and recomputed alike."""
    blocks = getattr(model, tower).transformer.blocks()

    def kind(place: int) -> tuple[object, ...]:
        trained = [name for name, parameter in blocks[place].named_parameters() if parameter.requires_grad]
        # The last block computes fewer rows. Places in the small model must be recomputed as those in the whole one.
        return trained, place if recompute_every > 1 else 0, place == len(blocks) - 1

    return [list(group) for _, group in groupby(range(len(blocks)), kind)]
