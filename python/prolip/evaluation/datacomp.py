"""Suite `datacomp`: DataComp's 38 tasks, two fairness extras and the published averages, or a table of other tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.errors import UserError
from prolip.evaluation.classification import classify, classify_faces
from prolip.evaluation.config import DatacompOptions, RetrievalOptions
from prolip.evaluation.datasets import Association, DataSet, find_folder, open_associations, open_dataset
from prolip.evaluation.results import Row, SuiteResult, TaskCache, TaskResult, mean_row, row_of_items
from prolip.evaluation.retrieval import retrieve_set
from prolip.evaluation.run import evaluate_sets
from prolip.evaluation.tasks import ALL, AVERAGES, TABLE, Task, read_tasks
from prolip.pretrained.model import Model

_FEW, _MANY = 6, 10
"""WinoGAViL's tasks with at most 6 candidates, and those with at least 10, are averaged separately."""


def run_datacomp(model: Model, options: DatacompOptions, cache: TaskCache) -> SuiteResult:
    """Run every task whose data exist, and average over them.

    Raises:
        UserError: not a valid table, an unknown task, or no task could be run.
        OSError: there is no such table.
    """
    table = read_tasks(options.table or TABLE)
    tasks = {task.name: task for task in chosen_tasks(table, options.tasks)}

    def prepare(name: str, _: str) -> tuple[dict[str, Any], Callable[[], TaskResult]]:
        task = tasks[name]
        where, associations = find_folder(options.data, task.folders), list[Association]()
        if task.metric == "associations":
            data, associations = open_associations(Path(where), cache.made)
        else:
            data = open_dataset(where, cache.made, options.store)
        settings = {"data": data.fingerprint, "task": list(map(str, task))}
        return settings, partial(run_task, model, task, data, associations, options.batch_size)

    title = options.table.stem if options.table else "datacomp"
    result = evaluate_sets(title, model, dict.fromkeys(tasks, ""), cache, prepare, "figures with variances")
    return dataclasses.replace(result, rows=[*average_rows(table, result.rows), *result.rows])


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
    model: Model, task: Task, data: DataSet, associations: Sequence[Association], batch_size: int
) -> TaskResult:
    """Run a task, and note if its data are fewer than published; errors as for the functions below."""
    match task.metric:
        case "retrieval":
            rows = retrieve_set(
                model, task.name, data, RetrievalOptions(checkpoint=(), data=(), batch_size=batch_size)
            ).rows
        case "associations":
            rows = associate(model, task, data, associations, batch_size)
        case "faces":
            rows = classify_faces(model, task, data, batch_size)
        case _:
            rows = classify(model, task, data, batch_size)
    count = max(row.num_items for row in rows if row.main or task.metric != "retrieval")
    smaller = f"{task.name}: smaller than published ({count:,} of {task.items:,})"
    return TaskResult(rows=rows, notes=[smaller] if count < task.items else [])


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


def associate(
    model: Model, task: Task, data: DataSet, associations: Sequence[Association], batch_size: int
) -> list[Row]:
    """WinoGAViL: the Jaccard index of the images nearest to a word and those that people chose for it.

    Raises:
        UserError: an image cannot be read.
    """
    images = embed_shards(model, data.shards, batch_size=batch_size, store=data.store)
    places = {int(key): row for row, key in enumerate(images.keys)}
    texts = embed_captions(model, [with_article(one.cue) for one in associations])
    scores = []
    for text, one in zip(texts.mean, associations, strict=True):
        if not places.keys() >= set(one.candidates):
            raise UserError(f"{data.source}: an image of {one.cue!r} cannot be read")
        candidates = images.gaussian.mean[[places[candidate] for candidate in one.candidates]]
        scores.append(jaccard(candidates @ text, torch.tensor(one.right)))
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
