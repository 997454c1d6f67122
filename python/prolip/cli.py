"""The command line: `prolip COMMAND ...`. Each command imports what it needs, so that `prolip --help` is quick."""

import difflib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

if TYPE_CHECKING:
    from prolip.datasets.shards import BuildSummary


class Command(NamedTuple):
    """A word of the command line."""

    summary: str
    run: Callable[[list[str]], int]
    """Takes the words after the command, returns the exit status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the words name; returns its exit status, 2 when the user's input is wrong."""
    return dispatch("prolip", COMMANDS, list(sys.argv[1:] if arguments is None else arguments))


def dispatch(prog: str, commands: dict[str, Command], words: list[str]) -> int:
    """Runs the command that the first word names."""
    if not words or words[0] in {"-h", "--help"}:
        width = max(map(len, commands))
        lines = [f"  {name.ljust(width)}  {command.summary}" for name, command in commands.items()]
        tell(f"usage: {prog} COMMAND ...\n", *lines, f"\n{prog} COMMAND --help says more.")
        return 0
    if words[0] == "--version":
        tell(version("prolip"))
        return 0
    if words[0] not in commands:
        close = difflib.get_close_matches(words[0], commands, n=1, cutoff=0.0)
        sys.stderr.write(f"{prog}: no command {words[0]!r}, did you mean {close[0]!r}?\n")
        return 2
    try:
        return commands[words[0]].run(words[1:])
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{prog} {words[0]}: {error}\n")
        return 2


def tell(*lines: str) -> None:
    """Writes lines to the standard output."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def share_cores_politely() -> None:
    """Lets torch's threads sleep while they wait, unless the user says otherwise; torch reads this when it is imported.

    By default they spin, and where anything else runs (the loader's threads, another process) a step takes many times
    as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def data_errors_as_answers() -> Iterator[None]:
    """Turns the loader's DataError into a ValueError, which is answered and not traced back."""
    from prolip.data import DataError

    try:
        yield
    except DataError as error:
        raise ValueError(str(error)) from error


# ---------------------------------------------------------------------------------------------------------------------
# prolip data build
# ---------------------------------------------------------------------------------------------------------------------


def _data(words: list[str]) -> int:
    commands = {
        "build": Command("make WebDataset shards", _data_build),
        "index": Command("index shards, so that training opens them at once", _data_index),
        "rank": Command("rank embedded samples by uncertainty or by how caption and picture fit", _data_rank),
        "filter": Command("copy shards with the samples that a ranking keeps", _data_filter),
    }
    return dispatch("prolip data", commands, words)


def _data_build(words: list[str]) -> int:
    return dispatch("prolip data build", BUILDERS, words)


def _build_emoji(words: list[str]) -> int:
    from prolip.datasets.emoji import EmojiConfig, build_emoji

    def options(
        config: tyro.conf.OmitArgPrefixes[EmojiConfig], out: Path = Path("data/emoji")
    ) -> tuple[EmojiConfig, Path]:
        """Shards of emoji pictures with their Unicode names: training, validation and test sets split by emoji.

        Args:
            config: How they are made.
            out: Folder of the shards, attributions and tokenizer.
        """
        return config, out

    return _tell_built(
        build_emoji(*tyro.cli(options, args=words, prog="prolip data build emoji", use_underscores=True))
    )


def _build_folder(words: list[str]) -> int:
    from prolip.datasets.folder import FolderConfig, build_folder

    def options(config: tyro.conf.OmitArgPrefixes[FolderConfig], out: Path) -> tuple[FolderConfig, Path]:
        """Shards of the pictures below a folder: one folder a class, or a .txt beside each picture.

        Args:
            config: How they are made.
            out: Folder of the shards.
        """
        return config, out

    return _tell_built(
        build_folder(*tyro.cli(options, args=words, prog="prolip data build folder", use_underscores=True))
    )


def _build_csv(words: list[str]) -> int:
    from prolip.datasets.csv_table import CsvConfig, build_csv

    def options(config: tyro.conf.OmitArgPrefixes[CsvConfig], out: Path) -> tuple[CsvConfig, Path]:
        """Shards of the pictures and captions that a table lists.

        Args:
            config: How they are made.
            out: Folder of the shards.
        """
        return config, out

    return _tell_built(build_csv(*tyro.cli(options, args=words, prog="prolip data build csv", use_underscores=True)))


def _tell_built(summary: "BuildSummary") -> int:
    sets = ", ".join(f"{name} {count}" for name, count in summary.samples.items())
    done = "was already built" if summary.already_built else f"built in {summary.seconds:.0f} s"
    tell(f"{summary.out} {done}: {sets}", *summary.notes)
    tell(*(f"left out {bad.name}: {bad.reason}" for bad in summary.skipped))
    return 0


BUILDERS = {
    "emoji": Command("emoji pictures and their Unicode names, the demo's data", _build_emoji),
    "folder": Command("pictures in class folders, or with a .txt beside each", _build_folder),
    "csv": Command("a table of picture paths and captions", _build_csv),
}


# ---------------------------------------------------------------------------------------------------------------------
# prolip data index
# ---------------------------------------------------------------------------------------------------------------------


def _data_index(words: list[str]) -> int:
    from prolip.indexing import IndexOptions, run_index

    options = tyro.cli(IndexOptions, args=words, prog="prolip data index", use_underscores=True)
    with data_errors_as_answers():
        status, lines = run_index(options)
    tell(*lines)
    return status


# ---------------------------------------------------------------------------------------------------------------------
# prolip data rank, prolip data filter
# ---------------------------------------------------------------------------------------------------------------------


def _data_rank(words: list[str]) -> int:
    from prolip.eval.ranking import RankOptions, run_rank

    options = tyro.cli(RankOptions, args=words, prog="prolip data rank", use_underscores=True)
    with data_errors_as_answers():
        tell(*run_rank(options))
    return 0


def _data_filter(words: list[str]) -> int:
    from prolip.eval.filtering import FilterOptions, run_filter

    options = tyro.cli(FilterOptions, args=words, prog="prolip data filter", use_underscores=True)
    with data_errors_as_answers():
        tell(*run_filter(options))
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# prolip train, prolip recipes, prolip demo
# ---------------------------------------------------------------------------------------------------------------------


def _train(words: list[str]) -> int:
    share_cores_politely()
    if rehearsed := {"--dry-run", "--dry_run"} & set(words):
        from prolip.planning import run_dry

        for line in run_dry([word for word in words if word not in rehearsed]):
            tell(line)
        return 0
    from prolip.train import main as train

    return train(words)


def _recipes(words: list[str]) -> int:
    from prolip.planning import RecipesOptions, run_recipes

    tell(*run_recipes(tyro.cli(RecipesOptions, args=words, prog="prolip recipes", use_underscores=True)))
    return 0


def _demo(words: list[str]) -> int:
    share_cores_politely()
    from prolip.demo import DemoConfig, run_demo

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = tyro.cli(DemoConfig, args=words, prog="prolip demo", use_underscores=True)
    with data_errors_as_answers():
        return run_demo(config)


# ---------------------------------------------------------------------------------------------------------------------
# prolip eval, prolip report
# ---------------------------------------------------------------------------------------------------------------------


def _eval(words: list[str]) -> int:
    return dispatch("prolip eval", SUITES, words)


def _eval_emoji(words: list[str]) -> int:
    share_cores_politely()
    from prolip.eval.suites.emoji import EmojiOptions, run_emoji
    from prolip.evaluate import run_suite

    options = tyro.cli(EmojiOptions, args=words, prog="prolip eval emoji", use_underscores=True)
    return _tell_suite(lambda: run_suite("emoji", options, run_emoji))


def _eval_datacomp(words: list[str]) -> int:
    share_cores_politely()
    from prolip.eval.suites.datacomp import DatacompOptions, run_datacomp
    from prolip.evaluate import run_suite

    options = tyro.cli(DatacompOptions, args=words, prog="prolip eval datacomp", use_underscores=True)
    return _tell_suite(lambda: run_suite("datacomp", options, run_datacomp))


def _tell_suite(run: Callable[[], list[str]]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with data_errors_as_answers():
        tell(*run())
    return 0


SUITES = {
    "datacomp": Command("DataComp's 38 tasks and two fairness extras, each by its own metric", _eval_datacomp),
    "emoji": Command("the demo's figures on the emoji shards, beside an untrained model", _eval_emoji),
}


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Writes report.html into a run's folder, one self-contained file, from its eval.json and metrics.jsonl."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    data: Path = Path("data/emoji")
    """The shards that were evaluated."""


def _report(words: list[str]) -> int:
    from prolip.eval.report import render_report

    options = tyro.cli(ReportOptions, args=words, prog="prolip report", use_underscores=True)
    tell(str(render_report(options.run, options.data)))
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# prolip bprw
# ---------------------------------------------------------------------------------------------------------------------


def _bprw(words: list[str]) -> int:
    share_cores_politely()
    from prolip.reweight import ReweightOptions, run_reweight

    options = tyro.cli(ReweightOptions, args=words, prog="prolip bprw", use_underscores=True)
    with data_errors_as_answers():
        tell(*run_reweight(options))
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# prolip embed, prolip search
# ---------------------------------------------------------------------------------------------------------------------


def _embed(words: list[str]) -> int:
    share_cores_politely()
    from prolip.embedding import EmbedOptions, run_embed

    options = tyro.cli(EmbedOptions, args=words, prog="prolip embed", use_underscores=True)
    with data_errors_as_answers():
        tell(*run_embed(options))
    return 0


def _search(words: list[str]) -> int:
    share_cores_politely()
    from prolip.searching import SearchOptions, run_search

    options = tyro.cli(SearchOptions, args=words, prog="prolip search", use_underscores=True)
    with data_errors_as_answers():
        tell(*run_search(options))
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# prolip explore
# ---------------------------------------------------------------------------------------------------------------------


def _explore(words: list[str]) -> int:
    share_cores_politely()
    from prolip.explore import ExploreOptions, run_explore

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("prolip").setLevel(logging.INFO)
    options = tyro.cli(ExploreOptions, args=words, prog="prolip explore", use_underscores=True)
    with data_errors_as_answers():
        run_explore(options)
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# prolip export
# ---------------------------------------------------------------------------------------------------------------------


def _export(words: list[str]) -> int:
    share_cores_politely()
    from prolip.export import ExportOptions, run_export

    tell(*run_export(tyro.cli(ExportOptions, args=words, prog="prolip export", use_underscores=True)))
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# prolip bench
# ---------------------------------------------------------------------------------------------------------------------


def _bench(words: list[str]) -> int:
    return dispatch("prolip bench", {"data": Command("measure the loader beside baselines", _bench_data)}, words)


def _bench_data(words: list[str]) -> int:
    from prolip.bench.data import BenchDataConfig, contenders, json_lines, measure, table

    config = tyro.cli(BenchDataConfig, args=words, prog="prolip bench data", use_underscores=True)
    summaries = measure(config, contenders(config), lambda line: sys.stderr.write(f"{line}\n"))
    tell(*(json_lines if config.json else table)(config, summaries))
    return 0


COMMANDS = {
    "data": Command("make, index, rank or filter WebDataset shards: prolip data build | index | rank | filter", _data),
    "train": Command("train from recipes and flags: prolip train RECIPE.toml ... --flag value [--dry-run]", _train),
    "recipes": Command("list the recipes with what they cost, or print one, complete", _recipes),
    "eval": Command("evaluate models side by side: prolip eval SUITE --checkpoint ... --data ...", _eval),
    "report": Command("write the report of an evaluated run, one HTML file", _report),
    "bprw": Command("weigh a class's prompts by how well they fit its images (Bayesian prompt re-weighting)", _bprw),
    "embed": Command("embed pictures and captions into parts: Parquet or safetensors, under torchrun too", _embed),
    "search": Command("find embedded pictures or captions by words or by a picture", _search),
    "explore": Command("open a page in which to try a model: pictures, captions, their uncertainty", _explore),
    "export": Command("write a run or a checkpoint as a folder of the hub's layout, or push it to the hub", _export),
    "bench": Command("measure the loader beside baselines: prolip bench data --shards ...", _bench),
    "demo": Command("build the emoji shards, train, evaluate, write the report; goes on where it was stopped", _demo),
}


if __name__ == "__main__":
    sys.exit(main())
