"""Evaluate a model on each data set of a suite: one that fails is noted, and the others run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from tqdm import tqdm

from prolip.data import DataError
from prolip.errors import UserError
from prolip.pretrained.model import Model
from prolip.suites.results import SuiteResult, TaskResult


def evaluate_sets(
    suite: str, model: Model, sets: Mapping[str, str], evaluate: Callable[[str, str, str], TaskResult]
) -> SuiteResult:
    """The rows, notes and charts of all data sets.

    Args:
        suite: the suite's name.
        model: the model.
        sets: the sources of the data sets, by display name (`name_sources`).
        evaluate: takes a data set's display name, its source, and the model's fingerprint.

    Raises:
        UserError: none could be evaluated.
    """
    result = SuiteResult(suite=suite, model=model.name, fingerprint=model.fingerprint(), rows=[], notes=[], charts=[])
    for name, source in tqdm(sets.items(), desc=model.name, unit="set", file=sys.stderr):
        try:
            found = evaluate(name, source, result.fingerprint)
        except (UserError, DataError, OSError) as error:
            result.notes.append(f"{name}: {error}")
        else:
            result.rows.extend(found.rows)
            result.notes.extend(found.notes)
            result.charts.extend(found.charts)
    if not result.rows:
        raise UserError("; ".join(result.notes))
    return result
