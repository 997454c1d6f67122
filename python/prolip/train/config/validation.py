"""Settings of validation during training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prolip.errors import UserError, check, check_at_least, fields_within
from prolip.metrics.config import DEFAULT_TEMPLATES

CLASS_MEMBER = "cls"
"""Holds a sample's class."""


@dataclass(frozen=True, kw_only=True)
class ValidationJob:
    """A validation set and what to measure on it. Metrics are named `val/NAME/METRIC`."""

    name: str = "val"
    """Name in the metrics."""
    kind: Literal["zero_shot", "retrieval", "uncertainty"] = "zero_shot"
    """`zero_shot`: classification with prompts. `retrieval`: image to caption and caption to image. `uncertainty`: its
    distribution, and whether uncertain items are retrieved less often."""
    shards: tuple[str, ...] = ()
    """Paths, URLs, brace patterns or globs of the validation set's shards."""
    every: int = 1000
    """Steps between two evaluations. The last step of a run is always evaluated."""
    batch_size: int = 128
    """Images to embed at a time, per process."""
    captions: tuple[str, ...] = ("txt",)
    """For retrieval and uncertainty: one entry per caption, `txt` or a dotted path into the sample's JSON."""
    class_key: str = CLASS_MEMBER
    """For zero_shot: where a sample's class is, its member `cls` or a dotted path into its JSON. A class is a name or
    a number from 0."""
    classnames: Path | None = None
    """For zero_shot: file of class names, one per line; spaces, _ and - are the same. None takes the labels that
    occur, sorted."""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    """For zero_shot: prompts of a class, with `{}` for its name."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What to evaluate during training."""

    jobs: tuple[ValidationJob, ...] = ()
    """The validation sets."""

    def validate(self) -> None:
        """Check every job."""
        for place, job in enumerate(self.jobs):
            key = f"validation.jobs.{place}"
            check(
                job.name and "/" not in job.name, f"{key}.name", "must not be empty or contain a slash", f"{job.name!r}"
            )
            check(
                job.name not in {other.name for other in self.jobs[:place]},
                f"{key}.name",
                "must be unique",
                f"{job.name!r}",
            )
            check(job.shards, f"{key}.shards", "name at least one")
            check_at_least(1, **{f"{key}.every": job.every, f"{key}.batch_size": job.batch_size})
            if job.kind == "zero_shot":
                from prolip.metrics.prompts import fill_templates  # imports torch, which --help must not wait for

                with fields_within(f"{key}."):
                    fill_templates(job.templates, ["a class"])
            elif not job.captions:
                raise UserError(f"{key}.captions", f"{job.kind} needs at least one")
