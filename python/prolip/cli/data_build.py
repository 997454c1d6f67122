"""`prolip data build emoji | suites | folder | csv`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from prolip.cli.command import Command, choose, finish, parse
from prolip.data.build.config import CsvConfig, FolderConfig
from prolip.demo.config import EmojiConfig, SuitesConfig

if TYPE_CHECKING:
    from prolip.data.build.shards import BuildSummary


def run(prog: str, arguments: list[str]) -> int:
    """Run the builder that the first argument names."""
    return choose(prog, BUILDERS, arguments)


def _emoji(prog: str, arguments: list[str]) -> int:
    def options(
        config: tyro.conf.OmitArgPrefixes[EmojiConfig], out: Path = Path("data/emoji")
    ) -> tuple[EmojiConfig, Path]:
        """Shards of emoji images with their Unicode names: training, validation and test sets split by emoji.

        Args:
            config: How they are made.
            out: Folder of the shards, attributions and tokenizer.
        """
        return config, out

    config, out = parse(options, prog, arguments)
    from prolip.demo.data.build import build_emoji

    return _report(build_emoji(config, out), f"prolip demo --data {out}")


def _suites(prog: str, arguments: list[str]) -> int:
    def options(
        config: tyro.conf.OmitArgPrefixes[SuitesConfig], out: Path = Path("data/emoji-suites")
    ) -> tuple[SuitesConfig, Path]:
        """A small data set for every suite of prolip eval, made of the held-out emoji.

        Args:
            config: Its settings.
            out: Folder of the data sets.
        """
        return config, out

    config, out = parse(options, prog, arguments)
    from prolip.demo.data.suite_datasets import build_suites

    then = f"prolip eval datacomp --checkpoint runs/demo --data {out} --table {out}/emoji-tasks.tsv"
    return _report(build_suites(config, out), then)


def _folder(prog: str, arguments: list[str]) -> int:
    def options(config: tyro.conf.OmitArgPrefixes[FolderConfig], out: Path) -> tuple[FolderConfig, Path]:
        """Shards of the images below a folder: captions from class folders, texts, file names, or none.

        Args:
            config: Which images and captions, and how they are stored.
            out: Folder of the shards.
        """
        return config, out

    config, out = parse(options, prog, arguments)
    from prolip.data.build.folder import build_folder

    summary = build_folder(config, out)
    shards = f"{out}/{'train' if 'train' in summary.samples else 'val'}-*.tar"
    then = f"prolip embed --checkpoint MODEL --shards '{shards}' --out FOLDER"
    if config.captions != "none" and "train" in summary.samples:
        then = f"prolip train finetune-clip-vit-b16 --shards '{shards}', or {then}"
    return _report(summary, then)


def _csv(prog: str, arguments: list[str]) -> int:
    def options(config: tyro.conf.OmitArgPrefixes[CsvConfig], out: Path) -> tuple[CsvConfig, Path]:
        """Shards of the images and captions that a table lists.

        Args:
            config: Which images and captions, and how they are stored.
            out: Folder of the shards.
        """
        return config, out

    config, out = parse(options, prog, arguments)
    from prolip.data.build.table import build_csv

    return _report(build_csv(config, out), f"prolip train finetune-clip-vit-b16 --shards '{out}/train-*.tar'")


def _report(summary: BuildSummary, then: str) -> int:
    sets = ", ".join(f"{name} {count}" for name, count in summary.samples.items())
    done = "was already built" if summary.already_built else f"built in {summary.seconds:.0f} s"
    left_out = [f"left out {bad.name}: {bad.reason}" for bad in summary.skipped]
    finish([f"{summary.out} {done}: {sets}", *summary.notes, *left_out], then, [summary.out])
    return 0


BUILDERS = {
    "emoji": Command("emoji images and their Unicode names, the demo's data", _emoji),
    "suites": Command("the held-out emoji as a data set for every suite of prolip eval", _suites),
    "folder": Command("images in class folders, with a .txt beside each, or a flat folder of photos", _folder),
    "csv": Command("a table of image paths and captions", _csv),
}
