"""The parts of a GPU run, most important first, each with its time limit."""

from typing import NamedTuple


class Part(NamedTuple):
    """One part, which runs in a process of its own."""

    name: str
    section: str
    """Machine, Correct or Fast."""
    about: str
    """What it does."""
    place: str
    """Its function, MODULE:NAME in this folder."""
    seconds: float
    """Time limit."""


PARTS = (
    Part("machine", "Machine", "card, versions, and the shards of the other parts", "machine:machine", 60),
    Part(
        "gradients",
        "Correct",
        "loss and gradients in fp32, bf16 and fp16, whole, accumulated and recomputed, against fp64 on the CPU",
        "gradients:eager",
        60,
    ),
    Part("speed", "Fast", "training steps of ViT-B/16 from shards, bf16, not compiled", "speed:eager", 75),
    Part("batches", "Correct", "device batches under load against the loader's bytes", "batches:under_load", 45),
    Part("published", "Fast", "the published code's step beside ours, one batch", "speed:published", 60),
    Part("speed, compiled", "Fast", "training steps of ViT-B/16 from shards, bf16, compiled", "speed:compiled", 150),
    Part("ranks", "Correct", "DDP and FSDP2 on one rank against no wrapper, three steps", "ranks:one_rank", 45),
    Part("curve", "Correct", "50 steps of a small model against the CPU's loss curve", "runs:curve", 45),
    Part("resume", "Correct", "a resumed run against one that was not stopped", "runs:resume", 40),
    Part("embed", "Correct", "`prolip embed` against the CPU", "runs:embed", 40),
    Part("gradients, compiled", "Correct", "loss and gradients of compiled blocks and loss", "gradients:compiled", 120),
)
