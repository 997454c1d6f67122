"""The task and the measurement that the measuring process and a contender exchange, as lines of JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from prolip.bench.config import Recipe


@dataclass(frozen=True, kw_only=True)
class Message:
    """What two processes exchange as a line of JSON. Its fields hold JSON values; a sequence comes back as a list."""

    def to_json(self) -> str:
        """Return the message as a line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return the message that `to_json` wrote."""
        return cls(**json.loads(line))


@dataclass(frozen=True, kw_only=True)
class Task(Message):
    """The settings of a contender's measurement."""

    contender: str
    """Name of the contender."""
    shards: Sequence[str]
    """Paths of the shards."""
    recipe: Recipe
    """`full`: crop, jitter, grey. `plain`: crop."""
    threads: int
    """Threads, or worker processes."""
    images: int
    """Smallest number of images to time."""
    batch_size: int
    """Samples per batch."""
    image_size: int
    """Side of the images in a batch, in pixels."""
    context_length: int = 77
    """Ids per caption."""


@dataclass(frozen=True, kw_only=True)
class Turn(Message):
    """The result of one contender in one round, without start-up."""

    images_per_s: float
    """Images per second of wall-clock time."""
    cpu_us: float
    """CPU time per image in microseconds, over all processes and threads."""


@dataclass(frozen=True, kw_only=True)
class Measurement(Turn):
    """The result of one run of one loader."""

    others_cores: float
    """Cores that the rest of the machine kept busy. Above a few hundredths the run was disturbed."""
    first_batch_s: float
    """Seconds from opening the loader to its first batch, without imports; 0 if there are no batches."""
    rss_mb: float
    """Peak resident memory in MB, summed over processes."""
    pss_mb: float
    """Memory at the end of the run in MB, with shared pages counted once."""
    import_mb: float
    """Peak resident memory in MB after imports."""
    stage_us: dict[str, float] = field(default_factory=dict)
    """`cpu_us` divided among the loader's stages in proportion to their times; empty for other contenders."""
