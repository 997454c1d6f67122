"""`prolip eval emoji`: the demo's measurements on the emoji shards, beside an untrained model and chance."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from prolip.decisions.calibration import Calibration, save_calibration
from prolip.decisions.config import CALIBRATION_FILE
from prolip.demo.config import EmojiOptions, Split
from prolip.demo.suite import Evaluated, evaluate_emoji
from prolip.errors import UserError
from prolip.evaluation.results import Row, SuiteResult, TaskCache, row_of_items
from prolip.evaluation.typed_json import to_json
from prolip.files import write_atomic
from prolip.pretrained.model import Model


def evaluate_run(model: Model, data: Path, split: Split) -> Evaluated:
    """Evaluate a model with the emoji suite.

    Raises:
        UserError: the model is not a ProLIP model with variances, or a shard is missing.
    """
    if model.prolip is None or not model.has_variances:
        raise UserError(f"{model.name} is not a ProLIP model with variances, which the emoji suite measures")
    given = {} if model.keep_ratio is None else {"keep_ratio": model.keep_ratio}
    found = evaluate_emoji(model.prolip, model.require_tokenizer(), data, model.device, split, **given)
    if found.calibration is None:
        return found
    subject = found.calibration.subject._replace(model=model.name, fingerprint=model.fingerprint())
    return found._replace(calibration=dataclasses.replace(found.calibration, subject=subject))


def keep_calibration(model: Model, calibration: Calibration | None) -> None:
    """Write a calibration into the model's folder, unless it has one already."""
    if calibration is not None and model.calibration is None and Path(model.name).is_dir():
        save_calibration(calibration, Path(model.name) / CALIBRATION_FILE)


def results_path(source: Path, split: Split) -> Path | None:
    """Return the results file of a run, in its folder; `source` is the folder or one of its checkpoints."""
    if not source.exists():
        return None
    folder = source if source.is_dir() else source.parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    return folder / ("eval.json" if split == "test" else f"eval-{split}.json")


def run_emoji(model: Model, options: EmojiOptions, cache: TaskCache) -> SuiteResult:
    """Return the headlines of a ProLIP model; write the full results and a calibration to its run's folder.

    Raises:
        UserError: it is not a ProLIP model, a shard is missing, or the precision is not fp32.
    """
    if options.precision != "fp32":
        raise UserError(f"precision is {options.precision}: the emoji suite only measures in fp32")
    results, trained, random, calibration = evaluate_run(model, options.data, options.split)
    keep_calibration(model, calibration)
    path = results_path(Path(model.name), options.split)
    if path is not None:
        write_atomic(path, to_json(results))
    rows = []
    for headline in results.headlines:
        task, items = headline.label, trained[headline.name]
        chance = f"chance: {headline.chance_label}"
        rows += [
            _row(task, "trained", headline.trained, items, main=True),
            _row(task, "untrained", headline.random, random[headline.name]),
            Row(task=task, metric=chance, value=headline.chance, num_items=len(items)),
        ]
    notes = [] if path is None else [f"full results: {path}"]
    return SuiteResult(suite="emoji", model=model.name, fingerprint=model.fingerprint(), rows=rows, notes=notes)


def _row(task: str, metric: str, value: float, items: Tensor, *, main: bool = False) -> Row:
    """Build a row from a headline and the items that it is the mean of."""
    return dataclasses.replace(row_of_items(task, metric, items, main=main), value=value)
