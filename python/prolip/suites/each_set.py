"""Evaluate a model on each data set of a suite: one that fails is noted, and the others run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from tqdm import tqdm

from prolip.data import DataError
from prolip.errors import UserError, sentence
from prolip.pretrained.model import Model
from prolip.suites.caption_sets import name_sources
from prolip.suites.results import SuiteResult, TaskResult


def evaluate_sets(
    suite: str, model: Model, sources: Sequence[str], evaluate: Callable[[str, str, str], TaskResult]
) -> SuiteResult:
    """The rows, notes and charts of all data sets.

    Args:
        suite: the suite's name.
        model: the model.
        sources: data sets, as the user names them.
        evaluate: takes a data set's display name, its source, and the model's fingerprint.

    Raises:
        UserError: none could be evaluated.
    """
    result = SuiteResult(suite=suite, model=model.name, fingerprint=model.fingerprint(), rows=[], notes=[], charts=[])
    for name, source in tqdm(name_sources(sources).items(), desc=model.name, unit="set", file=sys.stderr):
        try:
            found = evaluate(name, source, result.fingerprint)
        except (UserError, DataError, OSError) as error:
            result.notes.append(f"{name}: {sentence(error)}")
        else:
            result.rows.extend(found.rows)
            result.notes.extend(found.notes)
            result.charts.extend(found.charts)
    if not result.rows:
        raise UserError("; ".join(result.notes))
    return result
