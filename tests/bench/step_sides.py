"""A training step of ViT-S/16 size as published and as ours, each in a process of its own that steps when it is told.

Both begin at the same weights and take the same batch, on one core and one thread.
"""

import multiprocessing
import os
import resource
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from tests.bench.published_step import PublishedModel, PublishedStep, kept_patches, mask_texts
from tests.support.small_step import Step, run_of

from prolip.data import MaskConfig
from prolip.distributed.allocator import keep_freed_memory
from prolip.losses.config import LossConfig
from prolip.models import ModelConfig, ProLIP, TextConfig, VisionConfig
from prolip.train.config.optim import OptimConfig
from prolip.train.loop import take_step
from prolip.train.optim import learning_rate

Side = Literal["published", "published, memory kept", "ours"]
"""The second is told, as ours is, to keep the memory that it frees: what is left is what the step itself gains."""
Precision = Literal["fp32", "bf16"]

SMALL = ModelConfig(
    embed_dim=384,
    vision=VisionConfig(width=384, embed_unc=True),
    text=TextConfig(width=384, heads=6, norm_eps=1e-6),
    init_logit_bias=-10.0,
)
"""ViT-S/16: 12 layers, 6 heads, in both towers."""
TINY = ModelConfig(
    embed_dim=16,
    vision=VisionConfig(layers=2, width=16, head_width=8, patch_size=4, image_size=16, embed_unc=True),
    text=TextConfig(layers=2, width=16, heads=2, context_length=24, vocab_size=50),
    init_logit_bias=-10.0,
)
LOSS, OPTIM, MASK = LossConfig(), OptimConfig(), MaskConfig()


class Turn(NamedTuple):
    """What one step of a side took."""

    seconds: float
    """By the clock."""
    cpu_seconds: float
    """Of this process, on which others that share the core have less influence."""
    loss: float
    """Before the step."""


class Process:
    """A side in its process, which waits until it is asked."""

    def __init__(self, side, precision, batch_size, config):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, side, precision, batch_size, config), daemon=True)
        self._process.start()

    def step(self):
        """Takes a step."""
        self._pipe.send("step")
        return cast(Turn, self._answer())

    def peak_mebibytes(self):
        """The most that the process had resident so far."""
        self._pipe.send("peak")
        return cast(float, self._answer())

    def end(self):
        self._process.kill()
        self._process.join(60)

    def _answer(self):
        if not self._pipe.poll(600):
            raise TimeoutError("a side took no step in ten minutes")
        return self._pipe.recv()


@contextmanager
def processes(sides, precision, batch_size, config=SMALL):
    with ExitStack() as started:
        found = []
        for side in sides:
            found.append(Process(side, precision, batch_size, config))
            started.callback(found[-1].end)
        yield found


def images_and_ids(config, batch_size):
    """Noise, channels last as the loader's, and texts of 8 to 20 tokens, the rest padding (id 1)."""
    generator = torch.Generator().manual_seed(0)
    size, length = config.vision.image_size, config.text.context_length
    images = torch.randn(batch_size, size, size, 3, generator=generator).permute(0, 3, 1, 2)
    ids = torch.randint(2, min(MASK.mask_id, config.text.vocab_size), (batch_size, length), generator=generator)
    lengths = torch.randint(8, 21, (batch_size, 1), generator=generator)
    return images, ids.masked_fill(torch.arange(length) >= lengths, 1)


def masked_step(config, images, ids, mask):
    """The batch with masks, which our loader draws; here by the published draws, from the CPU's generator."""
    rows = int(len(images) * mask.masked_fraction)
    masked = mask_texts(ids[:rows], mask)
    kept = kept_patches(config.vision.num_patches, mask.text_mask_prob)
    return Step(images, ids[None], masked[None], kept.expand(rows, -1))


def _serve(pipe, side, precision, batch_size, config):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    if side != "published":
        assert keep_freed_memory()
    step = _stepper(side, precision, batch_size, config)
    while True:
        if pipe.recv() == "peak":
            pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            continue
        clock, cpu = time.perf_counter(), time.process_time()
        loss = step()
        pipe.send(Turn(time.perf_counter() - clock, time.process_time() - cpu, loss))


def _stepper(side, precision, batch_size, config):
    torch.manual_seed(0)
    mask = replace(MASK, mask_id=config.text.vocab_size - 1)
    model = ProLIP(config)
    images, ids = images_and_ids(config, batch_size)
    if side == "ours":
        run = run_of(model, precision=precision, loss=LOSS, optim=OPTIM, batch_size=batch_size)
        torch.manual_seed(0)
        batch = cast(Any, masked_step(config, images, ids, mask))

        def step():
            return take_step(run, batch)[0].total.item()

        return step
    published = PublishedModel(config)
    published.load_state_dict(model.state_dict())
    del model
    low = partial(torch.autocast, "cpu", torch.bfloat16, precision == "bf16")
    theirs = PublishedStep(published, LOSS, OPTIM, mask, low)
    torch.manual_seed(0)
    return lambda: theirs(images, ids, learning_rate(OPTIM, 0, 10)).item()
