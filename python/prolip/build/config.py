"""Settings for building shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prolip.errors import UserError, check, check_at_least


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Settings that all builders share."""

    max_side: int | None = None
    """Longest side in pixels; larger images are scaled down. By default, images are stored unchanged."""
    val_share: float = 0.0
    """Share of images, chosen by a hash, that go into `val-*.tar` instead."""
    split: str = "train"
    """What the other shards are called: `SPLIT-*.tar`, such as `test` for images to evaluate with."""
    max_bad_fraction: float = 0.01
    """Largest share of unreadable images, which are skipped and listed. Above it, the build fails."""
    samples_per_shard: int = 1000
    """Largest number of samples per shard."""
    seed: int = 0
    """Seed for the order and the validation split."""
    train_tokenizer: bool = False
    """Also write tokenizer.json, a small vocabulary of the training captions, for a model from scratch."""

    def __post_init__(self) -> None:
        check_at_least(1, samples_per_shard=self.samples_per_shard)
        if self.max_side is not None:
            check_at_least(1, max_side=self.max_side)
        if not self.split.isidentifier() or (self.val_share and self.split == "val"):
            raise UserError("split", "must be a word, and with val_share not val", f"{self.split!r}")
        check(0 <= self.val_share < 1, "val_share", "must be in [0, 1)", self.val_share)
        check(0 <= self.max_bad_fraction <= 1, "max_bad_fraction", "must be in [0, 1]", self.max_bad_fraction)


@dataclass(frozen=True, kw_only=True)
class FolderConfig(BuildConfig):
    """Build shards from a folder of images."""

    images: Path
    """Folder of images."""
    captions: Literal["class", "text", "name", "none"] = "class"
    """`class`: from the class in `IMAGES/CLASS/**/image.jpg`, with spaces for _ and -. `text`: from the .txt beside
    it. `name`: from the file's name. `none`: no captions."""
    name_pattern: str | None = None
    """For `name`: a regular expression whose one group, such as in `^\\d+_(.+)$`, finds the caption in the file's name
    without its extension; by default the whole name."""
    templates: tuple[str, ...] = ("{}", "a photo of {}", "a photo of a {}.")
    """Captions of a class, with {} for its name: the first becomes the .txt, all the JSON's "captions"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name_pattern is not None:
            self._check_pattern(self.name_pattern)
        check(
            not self.train_tokenizer or self.captions != "none",
            "train_tokenizer",
            "must be given with captions",
            "captions = none",
        )
        check(self.templates, "templates", "must not be empty")
        for template in self.templates:
            rest = template.replace("{}", "", 1)
            if rest == template or "{" in rest or "}" in rest:
                raise UserError("templates", f"{template!r} must contain {{}} once and no other brace")

    def _check_pattern(self, pattern: str) -> None:
        check(self.captions == "name", "name_pattern", "must be given with captions = name", self.captions)
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise UserError("name_pattern", "must be a regular expression", f"{pattern!r}: {error}") from error
        check(groups == 1, "name_pattern", "must have one group in parentheses", f"{pattern!r}")


@dataclass(frozen=True, kw_only=True)
class CsvConfig(BuildConfig):
    """Build shards from a table in UTF-8 whose first row names the columns."""

    table: Path
    """The table, a .csv or .tsv file."""
    image_column: str = "image"
    """Column of image paths; relative paths start at the table's folder."""
    caption_column: str = "caption"
    """Column of captions."""
    delimiter: str | None = None
    """Character between columns; by default a tab in .tsv files and a comma in others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise UserError("delimiter", "must be one character", f"{self.delimiter!r}")
        check(
            self.image_column != self.caption_column,
            "image_column",
            "must differ from caption_column",
            f"{self.image_column!r}",
        )
