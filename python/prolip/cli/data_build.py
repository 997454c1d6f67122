"""`prolip data build folder | csv`, and the demo's data."""

from __future__ import annotations

from pathlib import Path

import tyro

from prolip.cli import demo
from prolip.cli.command import Command, choose, finish_build, parse
from prolip.data.build.config import BuildConfig, CsvConfig, FolderConfig


def run(prog: str, arguments: list[str]) -> int:
    """Run the builder that the first argument names."""
    return choose(prog, BUILDERS, arguments)


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
        then = f"{_training(config, out)}, or {then}"
    return finish_build(summary, then)


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

    return finish_build(build_csv(config, out), _training(config, out))


def _training(config: BuildConfig, out: Path) -> str:
    shards = f"--shards '{out}/train-*.tar'"
    if config.train_tokenizer:
        return f"prolip train own-images {shards} --data.tokenizer.path {out}/tokenizer.json"
    return f"prolip train finetune-clip-vit-b16 {shards}"


BUILDERS = {
    "folder": Command("images in class folders, with a .txt beside each, or a flat folder of photos", _folder),
    "csv": Command("a table of image paths and captions", _csv),
    **demo.BUILDERS,
}
