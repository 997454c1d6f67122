"""The command line: `prolip COMMAND ...`. Each command imports what it needs, so that `prolip --help` is quick."""

import difflib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import tyro

from prolip.train.process import keep_freed_memory

if TYPE_CHECKING:
    from prolip.data.build.shards import BuildSummary

Options = TypeVar("Options")


class Command(NamedTuple):
    """A word of the command line."""

    summary: str
    run: Callable[[str, list[str]], int]
    """Takes the whole command, for its help, and the words after it; returns the exit status."""


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
        return commands[words[0]].run(f"{prog} {words[0]}", words[1:])
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


def parse(options: Callable[..., Options], prog: str, words: list[str]) -> Options:
    """What the words say of the options: a dataclass, or a function that is called with them."""
    return tyro.cli(options, args=words, prog=prog, use_underscores=True)


def told_by(module: str, options: str, run: str) -> Callable[[str, list[str]], int]:
    """A command whose options are a dataclass of a module, and whose function there gives the lines to tell.

    The module is imported when the command runs.
    """

    def command(prog: str, words: list[str]) -> int:
        home, chosen = _prepare(module, options, prog, words)
        with data_errors_as_answers():
            tell(*getattr(home, run)(chosen))
        return 0

    return command


def suite(module: str, options: str, run: str) -> Callable[[str, list[str]], int]:
    """A suite of `prolip eval`: its options, and what it runs on a model."""

    def command(prog: str, words: list[str]) -> int:
        home, chosen = _prepare(module, options, prog, words)
        from prolip.suites.run import run_suite

        with data_errors_as_answers():
            tell(*run_suite(prog.rsplit(maxsplit=1)[-1], chosen, getattr(home, run)))
        return 0

    return command


def _prepare(module: str, options: str, prog: str, words: list[str]) -> tuple[ModuleType, Any]:
    """A command's module, with what the words say of its options; our own words of progress are shown."""
    share_cores_politely()
    keep_freed_memory()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("prolip").setLevel(logging.INFO)
    home = import_module(module)
    return home, parse(getattr(home, options), prog, words)


# ---------------------------------------------------------------------------------------------------------------------
# prolip data build
# ---------------------------------------------------------------------------------------------------------------------


def _data(prog: str, words: list[str]) -> int:
    commands = {
        "build": Command("make WebDataset shards", _data_build),
        "index": Command("index shards, so that training opens them at once", _data_index),
        "rank": Command(
            "rank embedded samples by uncertainty or by how caption and picture fit",
            told_by("prolip.embeddings.rank", "RankOptions", "run_rank"),
        ),
        "filter": Command(
            "copy shards with the samples that a ranking keeps",
            told_by("prolip.embeddings.filter", "FilterOptions", "run_filter"),
        ),
    }
    return dispatch(prog, commands, words)


def _data_build(prog: str, words: list[str]) -> int:
    return dispatch(prog, BUILDERS, words)


def _build_emoji(prog: str, words: list[str]) -> int:
    from prolip.demo.data.build import EmojiConfig, build_emoji

    def options(
        config: tyro.conf.OmitArgPrefixes[EmojiConfig], out: Path = Path("data/emoji")
    ) -> tuple[EmojiConfig, Path]:
        """Shards of emoji pictures with their Unicode names: training, validation and test sets split by emoji.

        Args:
            config: How they are made.
            out: Folder of the shards, attributions and tokenizer.
        """
        return config, out

    return _tell_built(build_emoji(*parse(options, prog, words)))


def _build_suites(prog: str, words: list[str]) -> int:
    from prolip.demo.data.for_suites import SuitesConfig, build_suites

    def options(
        config: tyro.conf.OmitArgPrefixes[SuitesConfig], out: Path = Path("data/emoji-suites")
    ) -> tuple[SuitesConfig, Path]:
        """A small data set for every suite of prolip eval, made of the held-out emoji.

        Args:
            config: What it is made of.
            out: Folder of the data sets.
        """
        return config, out

    return _tell_built(build_suites(*tyro.cli(options, args=words, prog=prog, use_underscores=True)))


def _build_folder(prog: str, words: list[str]) -> int:
    from prolip.data.build.folder import FolderConfig, build_folder

    def options(config: tyro.conf.OmitArgPrefixes[FolderConfig], out: Path) -> tuple[FolderConfig, Path]:
        """Shards of the pictures below a folder: one folder a class, or a .txt beside each picture.

        Args:
            config: How they are made.
            out: Folder of the shards.
        """
        return config, out

    return _tell_built(build_folder(*parse(options, prog, words)))


def _build_csv(prog: str, words: list[str]) -> int:
    from prolip.data.build.table import CsvConfig, build_csv

    def options(config: tyro.conf.OmitArgPrefixes[CsvConfig], out: Path) -> tuple[CsvConfig, Path]:
        """Shards of the pictures and captions that a table lists.

        Args:
            config: How they are made.
            out: Folder of the shards.
        """
        return config, out

    return _tell_built(build_csv(*parse(options, prog, words)))


def _tell_built(summary: "BuildSummary") -> int:
    sets = ", ".join(f"{name} {count}" for name, count in summary.samples.items())
    done = "was already built" if summary.already_built else f"built in {summary.seconds:.0f} s"
    tell(f"{summary.out} {done}: {sets}", *summary.notes)
    tell(*(f"left out {bad.name}: {bad.reason}" for bad in summary.skipped))
    return 0


BUILDERS = {
    "emoji": Command("emoji pictures and their Unicode names, the demo's data", _build_emoji),
    "suites": Command("the held-out emoji as a data set for every suite of prolip eval", _build_suites),
    "folder": Command("pictures in class folders, or with a .txt beside each", _build_folder),
    "csv": Command("a table of picture paths and captions", _build_csv),
}


# ---------------------------------------------------------------------------------------------------------------------
# prolip data index
# ---------------------------------------------------------------------------------------------------------------------


def _data_index(prog: str, words: list[str]) -> int:
    from prolip.data.index import IndexOptions, run_index

    options = parse(IndexOptions, prog, words)
    with data_errors_as_answers():
        status, lines = run_index(options)
    tell(*lines)
    return status


# ---------------------------------------------------------------------------------------------------------------------
# prolip train, prolip demo
# ---------------------------------------------------------------------------------------------------------------------


def _train(prog: str, words: list[str]) -> int:
    share_cores_politely()
    if rehearsed := {"--dry-run", "--dry_run"} & set(words):
        from prolip.train.dry_run import run_dry

        for line in run_dry([word for word in words if word not in rehearsed]):
            tell(line)
        return 0
    from prolip.train.loop import main as train

    return train(words)


def _demo(prog: str, words: list[str]) -> int:
    share_cores_politely()
    from prolip.demo.run import DemoConfig, run_demo

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = parse(DemoConfig, prog, words)
    with data_errors_as_answers():
        return run_demo(config)


# ---------------------------------------------------------------------------------------------------------------------
# prolip report
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Writes report.html into a run's folder, one self-contained file, from its eval.json and metrics.jsonl."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    data: Path = Path("data/emoji")
    """The shards that were evaluated."""


def _report(prog: str, words: list[str]) -> int:
    from prolip.demo.report import render_report

    options = parse(ReportOptions, prog, words)
    tell(str(render_report(options.run, options.data)))
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# prolip bench
# ---------------------------------------------------------------------------------------------------------------------


def _bench(prog: str, words: list[str]) -> int:
    return dispatch(prog, {"data": Command("measure the loader beside baselines", _bench_data)}, words)


def _bench_data(prog: str, words: list[str]) -> int:
    from prolip.bench.data import BenchDataConfig, contenders, json_lines, measure, table

    config = parse(BenchDataConfig, prog, words)
    summaries = measure(config, contenders(config), lambda line: sys.stderr.write(f"{line}\n"))
    tell(*(json_lines if config.json else table)(config, summaries))
    return 0


SUITES = {
    "datacomp": Command(
        "DataComp's 38 tasks and two fairness extras, or tasks of your own, each by its own metric",
        suite("prolip.suites.datacomp", "DatacompOptions", "run_datacomp"),
    ),
    "imagenet": Command(
        "ImageNet, V2, A, R and Sketch, or other sets, with even, filtered and re-weighted prompts",
        suite("prolip.suites.imagenet", "ImagenetOptions", "run_imagenet"),
    ),
    "emoji": Command(
        "the demo's figures on the emoji shards, beside an untrained model",
        suite("prolip.demo.suite.options", "EmojiOptions", "run_emoji"),
    ),
    "retrieval": Command(
        "pictures and captions found by each other: Flickr, COCO 1K and 5K, CxC, ECCV Caption, or your own pairs",
        suite("prolip.suites.retrieval", "RetrievalOptions", "run_retrieval"),
    ),
    "hierarcaps": Command(
        "walks from pictures through captions of four levels, inclusion and uncertainty by level",
        suite("prolip.suites.hierarchies", "HierarcapsOptions", "run_hierarcaps"),
    ),
    "hierarimgs": Command(
        "walks from captions through pictures of several levels",
        suite("prolip.suites.hierarchies", "HierarimgsOptions", "run_hierarimgs"),
    ),
    "uncertainty": Command(
        "uncertainty against accuracy and length, and after shortening, masking or blurring",
        suite("prolip.suites.uncertainty", "UncertaintyOptions", "run_uncertainty"),
    ),
}

COMMANDS = {
    "data": Command("make, index, rank or filter WebDataset shards: prolip data build | index | rank | filter", _data),
    "train": Command("train from recipes and flags: prolip train RECIPE.toml ... --flag value [--dry-run]", _train),
    "recipes": Command(
        "list the recipes with what they cost, or print one, complete",
        told_by("prolip.train.dry_run", "RecipesOptions", "run_recipes"),
    ),
    "eval": Command(
        "evaluate models side by side: prolip eval SUITE --checkpoint ... --data ...",
        lambda prog, words: dispatch(prog, SUITES, words),
    ),
    "report": Command("write the report of an evaluated run, one HTML file", _report),
    "bprw": Command(
        "weigh a class's prompts by how well they fit its images (Bayesian prompt re-weighting)",
        told_by("prolip.suites.reweight", "ReweightOptions", "run_reweight"),
    ),
    "embed": Command(
        "embed pictures and captions into parts: Parquet or safetensors, under torchrun too",
        told_by("prolip.embeddings.embed_parts", "EmbedOptions", "run_embed"),
    ),
    "search": Command(
        "find embedded pictures or captions by words or by a picture",
        told_by("prolip.embeddings.queries", "SearchOptions", "run_search"),
    ),
    "explore": Command(
        "open a page in which to try a model: pictures, captions, their uncertainty",
        told_by("prolip.explore", "ExploreOptions", "run_explore"),
    ),
    "runs": Command(
        "tabulate runs side by side, and draw their curves on a page",
        told_by("prolip.train.logging.runs", "RunsOptions", "run_runs"),
    ),
    "export": Command(
        "write a run or a checkpoint as a folder of the hub's layout, or push it to the hub",
        told_by("prolip.interop.export", "ExportOptions", "run_export"),
    ),
    "bench": Command("measure the loader beside baselines: prolip bench data --shards ...", _bench),
    "demo": Command("build the emoji shards, train, evaluate, write the report; goes on where it was stopped", _demo),
}
