"""A training step of a tiny model: its configuration, a batch, its gradients in parts or whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from prolip.distributed import Peers, Ranks
from prolip.images.tensors import Patches
from prolip.losses import LossConfig, ProlipLoss
from prolip.models import ModelConfig, ProLIP
from prolip.models.config import TextConfig, VisionConfig
from prolip.train.accumulate import backward
from prolip.train.config import TrainConfig
from prolip.train.config.optim import OptimConfig
from prolip.train.loop import Run
from prolip.train.optim import Divergence, Ema, LossScaler, make_optimizer

CONFIG = ModelConfig(
    embed_dim=16,
    vision=VisionConfig(image_size=12, patch_size=6, width=16, head_width=8, layers=1, embed_unc=True),
    text=TextConfig(width=16, heads=2, layers=1, vocab_size=10, context_length=4, embed_unc=True),
    init_logit_bias=-5.0,
)
# Every term counts, so that an error in one shows.
LOSS = LossConfig(inclusion_weight=0.1, masked_inclusion_weight=0.1, vib_weight=0.1, inclusion_scale=2.0)
SLOTS = 2
ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))


class Step(NamedTuple):
    images: Tensor | Patches
    token_ids: Tensor
    masked_token_ids: Tensor | None
    kept_patches: Tensor | None


def step_of(items, masked, *, rank=0):
    generator = torch.Generator().manual_seed(100 * items + masked + 10_000 * rank)
    ids = torch.randint(2, 10, (SLOTS, items, 4), generator=generator)
    kept = torch.rand(masked, 4, generator=generator).argsort(1)[:, :2].sort(1).values
    return Step(
        torch.randn(items, 3, 12, 12, generator=generator),
        ids,
        ids[:, :masked].flip(-1) if masked else None,
        kept if masked else None,
    )


def native_step_of(items, masked):
    """A step whose images have 2 to 4 patches."""
    generator = torch.Generator().manual_seed(items)
    grids = [((2, 2), (1, 3), (2, 1))[item % 3] for item in range(items)]
    images = Patches.of([torch.randn(3, 6 * rows, 6 * columns, generator=generator) for rows, columns in grids], 6)
    kept = torch.tensor([(0, item % 2 * 2 - 1) for item in range(masked)]).reshape(masked, 2)
    return step_of(items, masked)._replace(images=images, kept_patches=kept if masked else None)


def model_of(*, native=False):
    torch.manual_seed(3)
    return ProLIP(replace(CONFIG, vision=replace(CONFIG.vision, image_seq_len=4 if native else None)))


def gradients(network, batch, parts):
    network.zero_grad(set_to_none=True)
    terms, output = backward(network, ProlipLoss(LOSS, Peers()), batch, micro_batches=parts)
    assert len(output.image.mean) == batch.token_ids.shape[1]
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    return terms, {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def run_of(model, **changes):
    settings = {"batch_size": 8, "loss": LOSS, "optim": OptimConfig(warmup_steps=2, clip_norm=0.01), **changes}
    config = TrainConfig(
        samples_seen=640,
        out=Path("unused"),
        model=CONFIG,
        data=replace(TrainConfig().data, shards=("unused",)),
        **settings,
    )
    return Run(
        config=config,
        ranks=ALONE,
        model=model,
        network=model,
        loss=ProlipLoss(config.loss, Peers()),
        optimizer=make_optimizer(model, config.optim, ALONE),
        ema=Ema(model, config.ema) if config.ema.decay > 0 else None,
        scaler=LossScaler(ALONE.device) if config.precision == "fp16" else None,
        divergence=Divergence(ALONE),
        stopping=cast(Any, None),
        loader=cast(Any, None),
        saver=cast(Any, None),
        validation=cast(Any, None),
        best=cast(Any, None),
        step=0,
        samples=0,
        elapsed_s=0.0,
    )
