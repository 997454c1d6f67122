"""`prolip data build folder | csv | hierarimgs`, and the demo's data."""

from __future__ import annotations

from pathlib import Path

import tyro

from prolip.build.config import BuildConfig, CsvConfig, FolderConfig
from prolip.build.shards import BuildSummary
from prolip.cli import demo
from prolip.cli.command import Command, choose, finish, finish_build, parse


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
    from prolip.build.folder import build_folder

    return _finish(config, build_folder(config, out))


def _csv(prog: str, arguments: list[str]) -> int:
    def options(config: tyro.conf.OmitArgPrefixes[CsvConfig], out: Path) -> tuple[CsvConfig, Path]:
        """Shards of the images and captions that a table lists.

        Args:
            config: Which images and captions, and how they are stored.
            out: Folder of the shards.
        """
        return config, out

    config, out = parse(options, prog, arguments)
    from prolip.build.table import build_csv

    return _finish(config, build_csv(config, out))


def _hierarimgs(prog: str, arguments: list[str]) -> int:
    from prolip.build.hierarimgs import build_hierarimgs

    return finish([parse(build_hierarimgs, prog, arguments)], "prolip eval hierarimgs --checkpoint MODEL --data FOLDER")


def _finish(config: BuildConfig, summary: BuildSummary) -> int:
    shards = f"--shards '{summary.out}/{next(iter(summary.samples))}-*.tar'"
    then = f"prolip embed --checkpoint MODEL {shards} --out FOLDER"
    if config.train_tokenizer:
        then = f"prolip train own-images {shards} --data.tokenizer.path {summary.out}/tokenizer.json"
    return finish_build(summary, then)


BUILDERS = {
    "folder": Command("images in class folders, with a .txt beside each, or a flat folder of photos", _folder),
    "csv": Command("a table of image paths and captions", _csv),
    "hierarimgs": Command("hierarchies of images from COCO's annotations", _hierarimgs),
    **demo.BUILDERS,
}
