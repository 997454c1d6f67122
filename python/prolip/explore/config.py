"""Settings of the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from prolip.data import StoreConfig


@dataclass(frozen=True, kw_only=True)
class ExploreOptions:
    """Opens a page in which to try a model: pictures, captions, their uncertainty, a classifier.

    Needs Gradio: `pip install 'prolip[explore]'`.
    """

    checkpoint: str
    """A run's folder, a checkpoint, a folder in the hub's layout, or hf-hub:organisation/name."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARDS")] = ()
    """Shards of pictures to choose from, to browse, and to weigh prompts by: paths, addresses, patterns, or a folder
    (its test set)."""
    caption_keys: tuple[str, ...] = ("txt", "caption", "captions.name", "captions.subgroup", "captions.group")
    """Where a sample's captions are: `txt`, or dotted paths into its json."""
    max_items: int = 1000
    """Samples that are read of the shards."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json; by default the one that the run was trained with, or if that is gone the one of its
    name in the data's folder."""
    host: str = "127.0.0.1"
    """Address that is listened on; the default cannot be reached from other machines."""
    port: int = 7860
    """Port that is listened on."""
    max_upload_mb: int = 20
    """Size of a picture that is dropped onto the page, at most."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How shards are read that lie elsewhere."""

    def __post_init__(self) -> None:
        for name in ("max_items", "max_upload_mb"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}: it must be from 1 to 65535")
