"""Settings of `prolip export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Writes a model in the hub's layout: config.json, model.safetensors, a card, and the tokenizer's file if any."""

    source: Annotated[str, tyro.conf.Positional]
    """A run's folder (its newest usable checkpoint), or whatever `prolip.load` opens: a checkpoint, a folder,
    hf-hub:OWNER/NAME, open_clip:NAME/TAG."""
    out: Path | None = None
    """Folder to write."""
    push: str | None = None
    """Hub repository, OWNER/NAME, to push to."""
    private: bool = False
    """Make that repository private, if it is new."""
    name: str | None = None
    """Title of the card; by default the run's name."""
    weights: Literal["average", "trained"] = "average"
    """Of a run: the averaged weights where it keeps them (`ema.decay`), or those that are trained in any case."""
    licence: str | None = None
    """The hub's word for the licence of the weights, such as mit or cc-by-4.0; by default unknown."""
    data: str | None = None
    """What it was trained on, in words; by default the run's shard patterns."""
