"""Code that commands share: choosing a command, parsing, output, and set-up before torch is imported."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, TypeVar

import tyro

import prolip
from prolip.data import usable_cores
from prolip.errors import DataError, UserError, log_to_terminal, printable, sentence, suggestion
from prolip.train.config.flags import gather, list_flags

if TYPE_CHECKING:
    from prolip.build.shards import BuildSummary
    from prolip.evaluation.config import SuiteOptions

Options = TypeVar("Options")


class Command(NamedTuple):
    """A command, and its line in the list of commands."""

    summary: str
    """One line for the list of commands."""
    run: Callable[[str, list[str]], int]
    """Takes the command's name, for its help, and its arguments; returns the exit status."""


class Suite(NamedTuple):
    """A suite of `prolip eval`."""

    summary: str
    options: type[SuiteOptions]
    load: Callable[[], Callable[..., Any]]
    """Imports the function that takes a model, the options and the finished tasks, and returns a `SuiteResult`."""


def choose(prog: str, commands: Mapping[str, Command], arguments: list[str]) -> int:
    """Run the command that the first argument names; returns its exit status."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        width = max(map(len, commands))
        lines = [f"  {name.ljust(width)}  {command.summary}" for name, command in commands.items()]
        write_lines([f"usage: {prog} COMMAND ...\n", *lines, f"\n{prog} COMMAND --help describes a command."])
        return 0
    if arguments[0] == "--version":
        write_lines([prolip.__version__])
        return 0
    if arguments[0] not in commands:
        sys.stderr.write(f"{prog}: unknown command {arguments[0]!r}; {suggestion(arguments[0], commands)}\n")
        return 2
    prog = f"{prog} {arguments[0]}"
    try:
        return commands[arguments[0]].run(prog, arguments[1:])
    except BrokenPipeError:
        raise  # `main` ends quietly
    except (UserError, DataError, OSError) as error:
        write_lines([f"{prog}: {sentence(error)}"], sys.stderr)
        return 2


def parse(options: Callable[..., Options], prog: str, arguments: list[str]) -> Options:
    """Parse arguments into options: a dataclass, or the result of a function with such parameters.

    For a wrong argument, tyro says what is wrong and exits with status 2.

    Raises:
        UserError: an option that has one value is given twice.
    """
    arguments = [word for words in gather(arguments, list_flags(options)).values() for word in words]
    return tyro.cli(options, args=arguments, prog=prog, use_underscores=True)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that temporary files are deleted. The exit status is 143."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def write_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Write lines, by default to the standard output, each as soon as it is available.

    Control characters are escaped: names from data must not control the terminal.
    """
    for line in lines:
        (stream or sys.stdout).write(f"{printable(line, lines=True)}\n")


def finish(
    lines: Iterable[str], then: str, wrote: Iterable[str | Path | None] = (), *, for_programs: bool = False
) -> int:
    """Print a command's lines, and then what it wrote and what to do next; returns the exit status, 0.

    Args:
        lines: if there are none, nothing is written, since another process writes them.
        then: what to do next.
        wrote: what was written; None entries are left out.
        for_programs: the lines are JSON or TOML, so the last line goes to the standard error.
    """
    written = False
    for line in lines:
        write_lines([line])
        written = True
    if written:
        names = ", ".join(str(name) for name in wrote if name is not None)
        write_lines([f"{names and f'wrote {names}; '}next: {then}"], sys.stderr if for_programs else None)
    return 0


def finish_build(summary: BuildSummary, then: str) -> int:
    """Print what a builder made, and what to do next; returns the exit status."""
    sets = ", ".join(f"{name} {count}" for name, count in summary.samples.items())
    done = "was already built" if summary.already_built else f"built in {summary.seconds:.0f} s"
    left_out = [f"left out {bad.name}: {bad.reason}" for bad in summary.skipped]
    return finish([f"{summary.out} {done}: {sets}", *summary.notes, *left_out], then, [summary.out])


def share_cores() -> None:
    """Let torch use the cores that this process may use; the user's environment comes first.

    Call it before torch is imported. By default there is a thread for each core of the machine, also in a container,
    and waiting threads spin, which slows down all else, such as the loader's threads.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if usable_cores() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def prepare() -> None:
    """Prepare this process to run a model, before torch is imported: threads, memory, logging."""
    share_cores()
    from prolip.distributed.allocator import keep_freed_memory

    keep_freed_memory()
    log_to_terminal(logging.WARNING)
    logging.getLogger("prolip").setLevel(logging.INFO)
