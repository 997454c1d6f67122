"""Suite `datacomp`: DataComp's 38 tasks, two fairness extras and the published averages, or a table of other tasks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from prolip.data import DataError
from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.errors import UserError, sentence
from prolip.evaluation.classification import classify, classify_faces
from prolip.evaluation.config import DatacompOptions, RetrievalOptions
from prolip.evaluation.csv_datasets import Association, open_associations, open_local
from prolip.evaluation.folders import FolderMissing, TaskFolder, find_folder, shown_places
from prolip.evaluation.results import Row, SuiteResult, TaskCache, TaskResult, mean_row, row_of_items
from prolip.evaluation.retrieval import retrieve_set
from prolip.evaluation.tasks import ALL, AVERAGES, TABLE, Task, read_tasks
from prolip.pretrained.model import Model, missing_csd

logger = logging.getLogger(__name__)

_NAMED = 5
"""Largest number of data sets that a note names."""
_FEW, _MANY = 6, 10
"""WinoGAViL's tasks with at most 6 candidates, and those with at least 10, are averaged separately."""


def run_datacomp(model: Model, options: DatacompOptions, cache: TaskCache) -> SuiteResult:
    """Run every task whose data exist, and average over them.

    Raises:
        UserError: not a valid table, an unknown task, or no task could be run.
        OSError: there is no such table.
    """
    table = read_tasks(options.table or TABLE)
    tasks = chosen_tasks(table, options.tasks)
    fingerprint, fetched = model.fingerprint(), cache.folder.with_name("data")
    rows: list[Row] = []
    missing: list[str] = []
    smaller: list[str] = []
    notes: list[str] = []
    for task in tqdm(tasks, desc=model.name, unit="task", file=sys.stderr):
        try:
            found = run_task(model, task, options, cache, fingerprint, fetched)
        except FolderMissing:
            missing.append(task.key)
        except (UserError, DataError, OSError) as error:
            notes.append(f"{task.name}: {sentence(error)}")
            logger.warning("%s: %s", task.name, sentence(error))
        else:
            rows += found.rows
            count = max(row.num_items for row in found.rows if row.main or task.metric != "retrieval")
            if count < task.items:
                smaller.append(f"{task.name} ({count:,} of {task.items:,})")
    if missing:
        notes.insert(0, f"not in {shown_places(options.data)}: {', '.join(missing)}")
    if not rows:
        raise UserError("; ".join(notes))
    if smaller:
        more = f" and {len(smaller) - _NAMED} more" if len(smaller) > _NAMED else ""
        notes.append(f"smaller than published: {', '.join(smaller[:_NAMED])}{more}")
    if not model.has_csd:
        notes.append(f"figures with variances: {missing_csd(model)}")
    title = options.table.stem if options.table else "datacomp"
    found_rows = [*average_rows(table, rows), *rows]
    return SuiteResult(suite=title, model=model.name, fingerprint=fingerprint, rows=found_rows, notes=notes)


def chosen_tasks(table: Sequence[Task], keys: Sequence[str]) -> list[Task]:
    """The tasks with these keys, in the table's order; all tasks for no keys.

    Raises:
        UserError: an unknown task.
    """
    unknown = sorted(set(keys) - {task.key for task in table})
    if unknown:
        raise UserError(f"tasks has {', '.join(unknown)}: known are {', '.join(task.key for task in table)}")
    return [task for task in table if not keys or task.key in keys]


def run_task(
    model: Model, task: Task, options: DatacompOptions, cache: TaskCache, fingerprint: str, fetched: Path
) -> TaskResult:
    """Run a task, or read its result from the cache.

    Raises:
        FolderMissing: no place has the task's folder.
        UserError, DataError, OSError: it cannot be run; the message says why.
    """
    path = find_folder(options.data, task.folders, fetched)
    associations: list[Association] = []
    if task.metric == "associations":
        folder, associations = open_associations(path, fetched)
    else:
        folder = open_local(path, fetched, options.store)

    def run() -> list[Row]:
        match task.metric:
            case "retrieval":
                plain = RetrievalOptions(checkpoint=(), data=(), batch_size=options.batch_size)
                return retrieve_set(model, task.name, folder, plain).rows
            case "associations":
                return associate(model, task, folder, associations, options.batch_size)
            case "faces":
                return classify_faces(model, task, folder, options.batch_size)
            case _:
                return classify(model, task, folder, options.batch_size)

    settings = {"model": fingerprint, "data": folder.fingerprint, "task": list(map(str, task))}
    return cache.get_or_run(task.key, settings, lambda: TaskResult(rows=run()))


def average_rows(table: Sequence[Task], rows: Sequence[Row]) -> list[Row]:
    """The averages that a table names, each over the main figures of its tasks that have rows.

    DataComp's come first, in the published order; then others in the table's order; then the average of all tasks.
    """
    mains = {row.task: row for row in rows if row.main}
    others = dict.fromkeys(word for task in table for word in task.averages if word != ALL)
    averages = []
    for average in dict.fromkeys([*AVERAGES, *others, ALL]):
        members = [task for task in table if average in task.averages]
        there = [mains[task.name] for task in members if task.name in mains]
        title = f"{len(members)} tasks" if average == ALL else AVERAGES.get(average, average)
        if there:
            partly = "" if len(there) == len(members) else f" ({len(there)} of {len(members)} tasks)"
            averages.append(mean_row("Average", f"{title}{partly}", there, len(there)))
    return averages


# ---------------------------------------------------------------------------------------------------------------------
# Associations
# ---------------------------------------------------------------------------------------------------------------------


def associate(
    model: Model, task: Task, folder: TaskFolder, associations: Sequence[Association], batch_size: int
) -> list[Row]:
    """WinoGAViL: the Jaccard index of the images nearest to a word and those that people chose for it.

    Raises:
        UserError: an image cannot be read.
    """
    images = embed_shards(model, folder.shards, batch_size=batch_size, store=folder.store)
    places = {int(key): row for row, key in enumerate(images.keys)}
    texts = embed_captions(model, [with_article(one.cue) for one in associations])
    scores = []
    for place, one in enumerate(associations):
        lost = [candidate for candidate in one.candidates if candidate not in places]
        if lost:
            raise UserError(f"{folder.source}: {len(lost)} images of {one.cue!r} cannot be read")
        candidates = images.gaussian.mean[[places[candidate] for candidate in one.candidates]]
        scores.append(jaccard(candidates @ texts.mean[place], torch.tensor(one.right)))
    found = torch.tensor(scores, dtype=torch.float64)
    counts = torch.tensor([len(one.candidates) for one in associations])
    groups = {
        "Jaccard, 10 and 12 candidates": counts >= _MANY,
        "Jaccard, 5 and 6 candidates": counts <= _FEW,
        "Jaccard": counts > 0,
    }
    return [
        row_of_items(task.name, name, found[which], main=place == 0)
        for place, (name, which) in enumerate(groups.items())
        if bool(which.any())
    ]


def with_article(cue: str) -> str:
    """Return the prompt of WinoGAViL's baselines for CLIP: "A dog" or "An apple"."""
    cue = cue.lower()
    return f"{'An' if cue[:1] in set('aeiou') else 'A'} {cue}"


def jaccard(scores: Tensor, right: Tensor) -> float:
    """Jaccard index of the right candidates, bool [K], and as many with the highest scores, in [0, 1]."""
    chosen = torch.zeros_like(right)
    chosen[scores.topk(int(right.sum())).indices] = True
    return int((chosen & right).sum()) / int((chosen | right).sum())
