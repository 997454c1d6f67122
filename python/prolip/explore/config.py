"""Settings of `prolip explore`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from prolip.data import StoreConfig
from prolip.errors import check, check_at_least
from prolip.models.config import Device


@dataclass(frozen=True, kw_only=True)
class ExploreOptions:
    """Open a page for trying a model: images, captions, their uncertainty, a zero-shot classifier.

    Needs Gradio: `pip install 'prolip[explore]'`.
    """

    checkpoint: str
    """A released model, a run, a checkpoint, a folder, or hf-hub:OWNER/NAME."""
    shards: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SHARD|FOLDER ...")] = ()
    """Images to choose, browse and weight prompts by, as shards: paths, URLs, patterns, or a folder of shards (its test
    set)."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER ...")] = ()
    """Folders of images, with class folders or a .txt beside each image, or neither."""
    caption_key: tuple[str, ...] = ("txt",)
    """Where a sample's captions are: `txt`, or dotted paths into its JSON; all that exist are used."""
    class_key: str = "class_text"
    """Dotted path of the class in a sample's JSON, for the labels."""
    max_items: int = 1000
    """Largest number of samples to read. Of folders of images, each class has its turn."""
    calibration: Path | None = None
    """The file that `prolip calibrate` wrote, for label sets and "don't know"; by default calibration.safetensors in
    the model's folder."""
    tokenizer: str | None = None
    """`clip`, or a tokenizer.json. By default the run's own tokenizer; if its file is missing, the file of that name in
    the folder of shards."""
    device: Device = "auto"
    """Where the model runs."""
    host: str = "127.0.0.1"
    """Address to listen on. Other machines cannot reach the default."""
    port: int = 7860
    """Port to listen on."""
    max_upload_mb: int = 20
    """Largest size of an uploaded image, in MB."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """How remote shards are read."""

    def __post_init__(self) -> None:
        check_at_least(1, max_items=self.max_items, max_upload_mb=self.max_upload_mb)
        check(1 <= self.port <= 65535, "port", "must be from 1 to 65535", self.port)
