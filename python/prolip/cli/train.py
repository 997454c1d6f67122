"""`prolip train RECIPE.toml ... --flag value`: train on one process, or check a run with `--dry-run`."""

from __future__ import annotations

from dataclasses import replace

import tyro

from prolip.cli.command import finish, share_cores
from prolip.data import NativeConfig
from prolip.train.config import TrainConfig
from prolip.train.config.flags import gather, list_flags
from prolip.train.config.options import DryRunOptions
from prolip.train.config.validation import ValidationConfig, ValidationJob

_DRY_RUN = {"--dry-run", "--dry_run"}
ABOUT = """Train from recipes and flags. A recipe is a TOML file or a name of `prolip recipes`. Every key of a recipe is
a flag. Later recipes win, and flags win over recipes:

    prolip train vit-b16-datacomp-1b-1.28b --shards 'data/*.tar' --out runs/b16 --optim.lr 1e-4

--dry-run opens everything, computes parameters and hours, and starts nothing. --shards and --threads are short
for --data.shards and --data.num_threads. On several GPUs: torchrun --nproc-per-node N -m prolip.train with the same
arguments."""


def run(prog: str, arguments: list[str]) -> int:
    """Train, or check a run with --dry-run, or print the help."""
    if _DRY_RUN & set(arguments):
        arguments = [word for word in arguments if word not in _DRY_RUN]
        options, rest = tyro.cli(
            DryRunOptions,
            args=[word for words in gather(arguments, list_flags(TrainConfig)).values() for word in words],
            prog=f"{prog} --dry-run",
            use_underscores=True,
            return_unknown_args=True,
        )
        share_cores()
        from prolip.train.dry_run import run_dry

        return finish(run_dry(options, rest), "the same command without --dry-run")
    if {"-h", "--help", "--help-all"} & set(arguments):
        default = TrainConfig()
        tyro.cli(
            TrainConfig,
            args=["--help"],
            default=replace(
                default,
                data=replace(default.data, native=NativeConfig()),
                validation=ValidationConfig(jobs=(ValidationJob(),)),
            ),
            prog=prog,
            description=ABOUT,
            use_underscores=True,
            config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
        )
    share_cores()
    from prolip.train.loop import main

    return main(arguments)
