"""Run a suite on each model and write the results side by side (`prolip eval`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from prolip.errors import UserError, check_at_least, check_seed
from prolip.evaluation.caption_sets import is_missing
from prolip.evaluation.config import DatacompOptions, SuiteOptions
from prolip.evaluation.datacomp import chosen_tasks
from prolip.evaluation.result_files import write_results
from prolip.evaluation.results import SuiteResult, TaskCache
from prolip.evaluation.tasks import TABLE, read_tasks
from prolip.files import check_writable
from prolip.metrics.prompts import fill_templates
from prolip.pretrained.model import Model
from prolip.pretrained.open import load
from prolip.pretrained.sources import resolve

Options = TypeVar("Options", bound=SuiteOptions)


def run_suite(name: str, options: Options, run: Callable[[Model, Options, TaskCache], SuiteResult]) -> list[str]:
    """Run a suite on every model, with one model in memory at a time, and return the lines to print.

    Args:
        name: the suite's name.
        options: the suite's options.
        run: the suite's function.

    Raises:
        UserError: a model is named twice or cannot be opened, or the suite cannot run with the options; the message
            says why.
        OSError: the results cannot be written to their folder; see `check_writable`.
    """
    for option, what in (("checkpoint", "model"), ("data", "data set")):
        if getattr(options, option, None) == ():
            raise UserError(f"{option} is (): name at least one {what} with --{option}")
    if options.num_resamples < 0:
        raise UserError(f"num_resamples is {options.num_resamples}: it must not be negative; 0 is for no intervals")
    check_seed("seed", options.seed)
    twice = [source for source, count in Counter(options.checkpoint).items() if count > 1]
    if twice:
        raise UserError(f"checkpoint has {twice[0]} more than once: each model can be named once")
    out = options.folder(name)
    check_writable(out / "results.json")
    check_at_least(1, batch_size=options.batch_size)
    _check_files(options)
    for source in options.checkpoint:  # before any model runs, which may take hours
        resolve(source)
    data = getattr(options, "data", None)
    beside = data if isinstance(data, Path) else None

    def opened(source: str) -> Model:
        return load(
            source, tokenizer=options.tokenizer, device=options.device, beside=beside, precision=options.precision
        )

    # No variable holds a model while the next one is opened.
    results = [run(opened(source), options, TaskCache(out / "tasks")) for source in options.checkpoint]
    return write_results(out, results, num_resamples=options.num_resamples, seed=options.seed)


def _check_files(options: SuiteOptions) -> None:
    """Check what a suite reads, before a model is opened, which may have to be downloaded.

    Raises:
        UserError: no data set is there, a file that an option names is missing, a template is wrong, or a task unknown.
        OSError: there is no such table.
    """
    for name in ("data", "elsewhere", "known", "classnames"):
        value = getattr(options, name, None)
        sources = [*map(str, value)] if isinstance(value, tuple) else [str(value)] if value is not None else []
        missing = [source for source in sources if is_missing(source)]
        # A suite notes that a data set is missing, and evaluates the others.
        if missing and (name != "data" or len(missing) == len(sources)):
            raise UserError(f"{name} is {', '.join(missing)}: there is no such file or folder")
    templates = getattr(options, "templates", ())
    if templates and isinstance(templates, tuple):  # `eval imagenet` names a list instead
        fill_templates(templates, [""])
    if isinstance(options, DatacompOptions):
        chosen_tasks(read_tasks(options.table or TABLE), options.tasks)
