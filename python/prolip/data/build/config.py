"""Settings of the builders of shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class IntakeConfig:
    """What every builder of a user's pictures asks."""

    source: Path
    """Where the pictures or their table are."""
    max_side: int | None = None
    """Longest side in pixels: larger pictures are made smaller. By default all are stored as they are."""
    val_share: float = 0.0
    """Share of the pictures that goes into val-*.tar instead of train-*.tar, chosen by a hash."""
    max_bad_fraction: float = 0.01
    """Pictures that cannot be read are left out and named; more than this share of them is an error."""
    samples_per_shard: int = 1000
    """Largest number of samples in a file."""
    seed: int = 0
    """Of the order and of the choice of validation pictures."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        if self.max_side is not None and self.max_side < 1:
            raise ValueError(f"max_side = {self.max_side}: must be at least 1")
        if self.samples_per_shard < 1:
            raise ValueError(f"samples_per_shard = {self.samples_per_shard}: must be at least 1")
        if not 0 <= self.val_share < 1:
            raise ValueError(f"val_share = {self.val_share}: must be in [0, 1)")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction = {self.max_bad_fraction}: must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class FolderConfig(IntakeConfig):
    """How a folder of pictures becomes shards."""

    captions: Literal["class", "text"] = "class"
    """`class`: SOURCE/CLASS/**/picture, captions made of the class's name. `text`: picture.jpg with picture.txt."""
    templates: tuple[str, ...] = ("{}", "a photo of {}", "a picture of {}")
    """What is said of a class; {} is its name. The first is the .txt, all are the json's "captions"."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        super().__post_init__()
        if not self.templates:
            raise ValueError("templates: at least one is needed")
        for template in self.templates:
            rest = template.replace("{}", "", 1)
            if rest == template or "{" in rest or "}" in rest:
                raise ValueError(f"templates: {template!r} must hold {{}} once and no other brace")


@dataclass(frozen=True, kw_only=True)
class CsvConfig(IntakeConfig):
    """How a table becomes shards. Its first row names the columns; it is UTF-8."""

    image_column: str = "image"
    """Paths of the pictures; relative ones start at the table's folder."""
    caption_column: str = "caption"
    """Captions."""
    delimiter: str | None = None
    """What divides the columns; by default a tab in .tsv files and a comma in others."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        super().__post_init__()
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ValueError(f"delimiter = {self.delimiter!r}: must be one character")
        if self.image_column == self.caption_column:
            raise ValueError(f"image_column and caption_column are both {self.image_column!r}: must differ")
