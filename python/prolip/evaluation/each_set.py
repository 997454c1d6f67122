"""Evaluate a model on each data set of a suite: one that fails is noted, and the others run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from tqdm import tqdm

from prolip.data import DataError
from prolip.errors import UserError, sentence
from prolip.evaluation.results import SuiteResult, TaskResult
from prolip.pretrained.model import Model, missing_csd


def evaluate_sets(
    suite: str,
    model: Model,
    sets: Mapping[str, str],
    evaluate: Callable[[str, str, str], TaskResult],
    needs_csd: str | None = None,
) -> SuiteResult:
    """The rows, notes and charts of all data sets.

    Args:
        suite: the suite's name.
        model: the model.
        sets: the sources of the data sets, by display name (`name_sources`).
        evaluate: takes a data set's display name, its source, and the model's fingerprint.
        needs_csd: what a model without the sampled distance lacks; a note says so.

    Raises:
        UserError: none could be evaluated.
    """
    result = SuiteResult(suite=suite, model=model.name, fingerprint=model.fingerprint(), rows=[], notes=[], charts=[])
    for name, source in tqdm(sets.items(), desc=model.name, unit="set", file=sys.stderr):
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
    if needs_csd is not None and not model.has_csd:
        result.notes.append(f"{needs_csd}: {missing_csd(model)}")
    return result
