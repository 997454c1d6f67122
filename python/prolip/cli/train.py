"""`prolip train RECIPE.toml ... --flag value`: train on one process, or check a run with `--dry-run`."""

from __future__ import annotations

import tyro

from prolip.cli.command import finish, share_cores, write_lines
from prolip.help_text import one_sentence, paragraphs
from prolip.train.config.help import short_help
from prolip.train.config.options import DryRunOptions
from prolip.train.config.recipes import load_config

_DRY_RUN = {"--dry-run", "--dry_run"}


def run(prog: str, words: list[str]) -> int:
    """Train, or check a run with --dry-run, or print the help."""
    if _DRY_RUN & set(words):
        with one_sentence(words, prog):
            options, rest = tyro.cli(
                DryRunOptions,
                args=[word for word in words if word not in _DRY_RUN],
                prog=f"{prog} --dry-run",
                use_underscores=True,
                return_unknown_args=True,
                registry=paragraphs(),
            )
        share_cores()
        from prolip.train.dry_run import run_dry

        finish(run_dry(options, rest), "the same command without --dry-run")
        return 0
    if {"-h", "--help"} & set(words):
        write_lines(short_help(words))
        return 0
    if "--help-all" in words:
        load_config(["--help"])  # prints the help and exits, without the seconds that torch takes to import
    share_cores()
    from prolip.train.loop import main

    return main(words)
