"""Run a suite on each model and data set (`prolip eval`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from prolip.data import DataError
from prolip.datasets.data_set import DataSet, FolderMissing, is_path, name_sources
from prolip.datasets.imagenet_prompts import IMAGENET
from prolip.errors import UserError, check, check_at_least, check_seed, printable, sentence
from prolip.evaluation.config import SuiteOptions
from prolip.evaluation.result_files import write_results
from prolip.evaluation.results import SuiteResult, TaskCache, TaskResult
from prolip.evaluation.stored import open_model
from prolip.inference.model import Model
from prolip.pretrained.sources import resolve
from prolip.store.atomic_writes import check_writable
from prolip.store.typed_tables import plain

Options = TypeVar("Options", bound=SuiteOptions)
Prepared = tuple[object, Callable[[], TaskResult]]
"""What a result depends on besides model and options (see `TaskCache`), and the function that measures it."""
_OF_THE_RUN = {
    *("checkpoint", "out", "batch_size", "device", "num_resamples", "data", "store", "selection"),
    *("calibration", "classnames", "tasks", "table", "beside", "known", "voters"),
}
"""Options that name what is read, whose fingerprints count, or change no result."""


def run_suite(name: str, options: Options, run: Callable[[Model, Options, TaskCache], SuiteResult]) -> list[str]:
    """Run a suite on every model, with one in memory at a time; returns the lines to print.

    Raises:
        UserError: a model is named twice or cannot be opened, or the suite cannot run with the options.
        OSError: the results cannot be written.
    """
    check_at_least(0, num_resamples=options.num_resamples)
    check_at_least(1, batch_size=options.batch_size)
    check_seed("seed", options.seed)
    sources = options.checkpoint
    if len(set(sources)) < len(sources):
        raise UserError("checkpoint", "must name each model once", ", ".join(sources))
    out = options.folder(name)
    check_writable(out / "results.json")
    _check_data(options)
    for source in sources:  # before any model runs, which may take hours
        resolve(source)

    def opened(source: str) -> Model:
        return open_model(
            source,
            tokenizer=options.tokenizer,
            device=options.device,
            precision=options.precision,
            calibration=getattr(options, "calibration", None),
        )

    # No variable holds a model while the next is opened.
    results = [run(opened(source), options, TaskCache(out / "tasks")) for source in sources]
    return write_results(out, results, num_resamples=options.num_resamples, seed=options.seed)


def evaluate_sets(
    suite: str,
    model: Model,
    options: SuiteOptions,
    sets: Mapping[str, str],
    cache: TaskCache,
    prepare: Callable[[str, str], Prepared],
    needs_variances: str | None = None,
) -> SuiteResult:
    """The rows, notes and charts of all data sets. One that fails is noted, and the others run.

    Args:
        sets: sources by display name (`name_sources`).
        prepare: opens a data set by its display name and source.
        needs_variances: what a model without variances lacks, for a note.
    """
    result = SuiteResult(suite=suite, model=model.name, fingerprint=model.fingerprint(), rows=[], notes=[], charts=[])
    asked = {name: value for name, value in plain(options).items() if name not in _OF_THE_RUN}
    missing: dict[str, str] = {}
    for name, source in tqdm(sets.items(), desc=printable(model.name), unit="set", file=sys.stderr):
        try:
            read, measure = prepare(name, source)
            found = cache.get_or_run(name, [result.fingerprint, asked, read], measure).named(name)
        except FolderMissing as error:
            missing[name] = error.places
        except (UserError, DataError, OSError) as error:
            result.notes.append(f"{name}: {sentence(error)}")
        else:
            result.rows.extend(found.rows)
            result.notes.extend(found.notes)
            result.charts.extend(found.charts)
    for places in dict.fromkeys(missing.values()):
        absent = [name for name, where in missing.items() if where == places]
        result.notes.insert(0, f"not in {places}: {', '.join(absent)}")
    if not result.rows:
        raise UserError("data", "; ".join(result.notes))
    if needs_variances is not None and not model.has_variances:
        result.notes.append(f"{needs_variances}: the model has no variances")
    return result


def evaluate_data(
    suite: str,
    model: Model,
    options: Options,
    sources: Sequence[str],
    cache: TaskCache,
    opened: Callable[[str], DataSet],
    measure: Callable[[Model, DataSet, Options], TaskResult],
    *read: object,
    needs_variances: str | None = None,
) -> SuiteResult:
    """As `evaluate_sets`, for data sets that are all opened and measured alike.

    Args:
        opened: takes a source.
        measure: the suite.
        read: what else results depend on besides the options: calibrations, fingerprints, tensors.
    """

    def prepare(_: str, source: str) -> Prepared:
        data = opened(source)
        return [data.fingerprint, data.classnames, data.templates, *read], partial(measure, model, data, options)

    return evaluate_sets(suite, model, options, name_sources(sources), cache, prepare, needs_variances)


def _check_data(options: SuiteOptions) -> None:
    """Before a model is opened or downloaded."""
    for name in ("checkpoint", "data", "out_of_distribution", "known", "voters", "classnames", "selection"):
        value = getattr(options, name, None)
        sources = list(map(str, value)) if isinstance(value, tuple) else [str(value)] if value is not None else []
        check(value != () or name not in {"checkpoint", "data"}, name, "must be given at least once")
        missing = [source for source in sources if is_path(source) and source != IMAGENET and not Path(source).exists()]
        # A suite notes a missing data set, and evaluates the others.
        if missing and name != "checkpoint" and (name != "data" or len(missing) == len(sources)):
            raise UserError(name, "must be an existing file or folder", ", ".join(missing))
