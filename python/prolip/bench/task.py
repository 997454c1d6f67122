"""What crosses between the measuring process and a contender's: a task there, a measurement back."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Self

from prolip.bench.config import Recipe


@dataclass(frozen=True, kw_only=True)
class Task:
    """The work of one contender."""

    contender: str
    """Its name."""
    shards: tuple[str, ...]
    """Paths of the archives."""
    recipe: Recipe
    """`full`: crop, jitter, grey. `plain`: crop."""
    threads: int
    """Threads, or worker processes."""
    images: int
    """Pictures that are timed, at least."""
    batch_size: int
    """Samples of a batch."""
    image_size: int = 224
    """Side of a picture in the batch, in pixels."""
    context_length: int = 77
    """Ids of a text."""

    def to_json(self) -> str:
        """The task as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The task that `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "shards": tuple(values["shards"])})


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One run of one contender."""

    images_per_s: float
    """Pictures a second, start-up and first batches not counted."""
    cpu_us: float
    """Processor time of a picture in microseconds, all processes and threads together."""
    others_cores: float
    """Cores that the rest of the machine kept busy meanwhile: above a few hundredths the run was disturbed."""
    first_batch_s: float
    """Seconds from asking for the loader to its first batch, imports not counted; 0 where there are no batches."""
    rss_mb: float
    """The most memory that was resident, summed over processes."""
    pss_mb: float
    """Memory at the end of the run, shared pages counted once."""
    import_mb: float
    """The most memory that was resident once everything was imported."""
    stage_us: dict[str, float] = field(default_factory=dict)
    """`cpu_us` by the loader's stage, in proportion to the stages' times; empty for others."""

    def to_json(self) -> str:
        """The measurement as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The measurement that `to_json` wrote."""
        return cls(**json.loads(text))
