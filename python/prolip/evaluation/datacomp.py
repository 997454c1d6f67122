"""Suite `datacomp`: DataComp's 38 tasks, two fairness extras and the published averages, or a table of other tasks.

N images, M columns of metadata.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from prolip.datasets.data_set import Association, DataSet, embed_set, find_folder, open_associations, open_dataset
from prolip.datasets.labels import read_labels, read_metadata
from prolip.errors import UserError, check
from prolip.evaluation.classification import Answers, accuracy_rows, answer, build_classifier, hits_of
from prolip.evaluation.config import DatacompOptions, RetrievalOptions
from prolip.evaluation.evaluate import Prepared, evaluate_sets
from prolip.evaluation.results import Row, RowId, SuiteResult, TaskCache, TaskResult, mean_row, row_of_items
from prolip.evaluation.retrieval import retrieve_set
from prolip.inference.model import Model
from prolip.store.file_contents import read_text

TABLE = Path(__file__).with_name("datacomp.tsv")

Metric = Literal[
    "accuracy", "recall", "f1", "worst_region", "worst_group", "worst_group_top5", "retrieval", "associations", "faces"
]
"""A task's main one. `recall`: mean over classes. `associations`: WinoGAViL. `faces`: the fairness extras."""
BY_GROUP: tuple[Metric, ...] = ("worst_region", "worst_group", "worst_group_top5")
"""Of the worst group, for which they need a column of metadata."""
ALL = "all"
"""The average over all tasks, which comes last."""
AVERAGES = {
    "imagenet": "ImageNet",
    "shifts": "ImageNet distribution shifts",
    "vtab": "VTAB",
    "retrieval": "retrieval",
}
"""Titles of the other published averages, in order. Any other word is its own title."""
_NONE = "-"


_FEW, _MANY = 6, 10
"""WinoGAViL's tasks with at most 6 and with at least 10 candidates are averaged separately."""
OTHER_REGION = 5
"""FMoW's region "Other" has four images. WILDS leaves it out of the worst region; the released evaluation does not."""
WHITE = 1
"""Of the races of FairFace and UTKFace, "White"; their metadata has 0 for it and 1 for all others."""
NON_HUMAN, CRIME = 14, 18
"""Of the harmful labels for faces, the first non-human and the first crime-related one."""
OBJECTIVES = ("race", "gender", "age", "toxic")
_COLUMNS = 4
"""Of the metadata of FairFace and UTKFace."""

_MEASURES: dict[Metric, str] = {
    "recall": "class_recall",
    "worst_region": "worst_region_accuracy",
    "worst_group": "worst_group_accuracy",
    "worst_group_top5": "worst_group_top5_accuracy",
    "f1": "f1_macro",
}
"""With other names than their metric."""


class Task(NamedTuple):
    """A line of a table; fields are columns."""

    key: str
    """One word, its name on the command line."""
    name: str
    folders: tuple[str, ...]
    """Possible names, the usual one first."""
    items: int
    """Images (or associations of WinoGAViL) in the whole set; 0 if unknown."""
    metric: Metric
    group_column: int | None
    """Of metadata, for metrics of the worst group; else None."""
    averages: tuple[str, ...]


def read_tasks(path: Path = TABLE) -> list[Task]:
    """The tasks of a table, in order.

    Columns are separated by tabs, and the first line names them as in `Task`. Folders and averages are separated by
    spaces; `-` means none.

    Raises:
        UserError: not a valid table; the message names the file, the row, the column and the rule.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    tasks: list[Task] = []
    for number, row in enumerate(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
        place = f"{path} row {number}"
        if set(row) != set(Task._fields) or None in row.values():
            raise UserError(place, f"must have the columns {', '.join(Task._fields)}, separated by tabs")
        key, name = row["key"].strip(), row["name"].strip()
        metric = next((known for known in get_args(Metric) if known == row["metric"].strip()), None)
        group, items = row["group_column"].strip(), row["items"].strip()
        rules = {
            "key": (len(key.split()) == 1 and key not in {task.key for task in tasks}, "one word, and unique"),
            "name": (name not in {"", "Average", *(task.name for task in tasks)}, "unique, and not Average"),
            "folders": (row["folders"].strip() != "", "names of a folder, separated by spaces"),
            "items": (items.isdecimal(), "a whole number, 0 if unknown"),
            "metric": (metric is not None, f"one of {', '.join(get_args(Metric))}"),
            "group_column": (
                group.isdecimal() if metric in BY_GROUP else group == _NONE,
                f"the index, from 0, of the group in a sample's .npy; {_NONE} for metrics without groups",
            ),
        }
        for column, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"{place}, {column}", f"must be {rule}", f"{row[column]!r}")
        assert metric is not None, "checked above"
        group_column = int(group) if metric in BY_GROUP else None
        averages = tuple(word for word in row["averages"].split() if word != _NONE)
        tasks.append(Task(key, name, tuple(row["folders"].split()), int(items), metric, group_column, averages))
    check(tasks, path, "must have a line of columns, and a task in each other line")
    return tasks


# ---- Run -----------------------------------------------------------------------------------------------------------


def run_datacomp(model: Model, options: DatacompOptions, cache: TaskCache) -> SuiteResult:
    """Run every task whose data exist, and average over them."""
    table = read_tasks(options.table or TABLE)
    tasks = {task.name: task for task in chosen_tasks(table, options.tasks)}

    def prepare(name: str, _: str) -> Prepared:
        task = tasks[name]
        where, associations = find_folder(options.data, task.folders), list[Association]()
        if task.metric == "associations":
            data, associations = open_associations(Path(where))
        else:
            data = open_dataset(where, options.store, options.selection)
        return [data.fingerprint, task], partial(run_task, model, task, data, associations, options.batch_size)

    title = options.table.stem if options.table else "datacomp"
    result = evaluate_sets(title, model, options, dict.fromkeys(tasks, ""), cache, prepare, "figures with variances")
    return replace(result, rows=[*average_rows(table, result.rows), *result.rows])


def chosen_tasks(table: Sequence[Task], keys: Sequence[str]) -> list[Task]:
    """Those with these keys, in the table's order; all for no keys."""
    unknown = sorted(set(keys) - {task.key for task in table})
    if unknown:
        raise UserError("tasks", f"must be among {', '.join(task.key for task in table)}", ", ".join(unknown))
    return [task for task in table if not keys or task.key in keys]


def run_task(
    model: Model, task: Task, data: DataSet, associations: Sequence[Association], batch_size: int
) -> TaskResult:
    """Notes if its data are fewer than published."""
    match task.metric:
        case "retrieval":
            options = RetrievalOptions(checkpoint=(), data=(), batch_size=batch_size)
            rows = retrieve_set(model, data, options, promises=False).rows
        case "associations":
            rows = associate(model, data, associations, batch_size)
        case "faces":
            rows = classify_faces(model, data, batch_size)
        case _:
            rows = classify(model, task, data, batch_size)
    count = max(row.num_items for row in rows if row.main or task.metric != "retrieval")
    smaller = f"smaller than published ({count:,} of {task.items:,})"
    return TaskResult(rows=rows, notes=[smaller] if count < task.items else [])


def average_rows(table: Sequence[Task], rows: Sequence[Row]) -> list[Row]:
    """The averages that a table names, each over the main figures of its tasks that have rows.

    DataComp's come first, in the published order; then others in the table's order; then the average of all tasks.
    """
    mains = {row.id.data: row for row in rows if row.main}
    others = dict.fromkeys(word for task in table for word in task.averages if word != ALL)
    averages = []
    for average in dict.fromkeys([*AVERAGES, *others, ALL]):
        members = [task for task in table if average in task.averages]
        there = [mains[task.name] for task in members if task.name in mains]
        if there:
            id = RowId("mean_of_tasks", data="Average", of=AVERAGES.get(average, average), at=len(members))
            averages.append(mean_row(id, there, len(there)))
    return averages


def associate(model: Model, data: DataSet, associations: Sequence[Association], batch_size: int) -> list[Row]:
    """WinoGAViL: the Jaccard index of the images nearest to a word and those that people chose for it."""
    images = embed_set(model, data, batch_size)
    places = {int(key): row for row, key in enumerate(images.keys)}
    texts = model.encoder.embed_captions([with_article(one.cue) for one in associations])
    scores = []
    for text, one in zip(texts.mean, associations, strict=True):
        check(places.keys() >= set(one.candidates), data.source, f"cannot read an image of {one.cue!r}")
        candidates = images.gaussian.mean[[places[candidate] for candidate in one.candidates]]
        scores.append(jaccard(candidates @ text, torch.tensor(one.right)))
    found = torch.tensor(scores, dtype=torch.float64)
    counts = torch.tensor([len(one.candidates) for one in associations])
    groups = {"many_candidates": counts >= _MANY, "few_candidates": counts <= _FEW, "": counts > 0}
    return [
        row_of_items(RowId("jaccard", by=by), found[which], main=place == 0)
        for place, (by, which) in enumerate(groups.items())
        if bool(which.any())
    ]


def with_article(cue: str) -> str:
    """As WinoGAViL's baselines for CLIP: "A dog" or "An apple"."""
    cue = cue.lower()
    return f"{'An' if cue[:1] in set('aeiou') else 'A'} {cue}"


def jaccard(scores: Tensor, right: Tensor) -> float:
    """Of the right candidates, bool [K], and as many with the highest scores, in [0, 1]."""
    chosen = torch.zeros_like(right)
    chosen[scores.topk(int(right.sum())).indices] = True
    return int((chosen & right).sum()) / int((chosen | right).sum())


# ---- Classification -----------------------------------------------------------------------------------------------


def task_rows(task: Task, answers: Answers, labels: Tensor, metadata: Tensor | None) -> list[Row]:
    """With its main metric.

    `labels` are i64 [N], `metadata` i64 [N, M]; metrics of the worst group need them.
    """
    main = _MEASURES.get(task.metric, task.metric)
    rows = accuracy_rows(answers, labels, main=main)
    hits = hits_of(answers.top, labels)
    if task.metric == "f1":
        rows.append(row_of_items(RowId(main), answers.top[:, 0], labels, statistic="f1_macro", main=True))
    if task.group_column is not None and metadata is not None:
        # From 0: a group's number can be large, such as a year.
        values, groups = torch.unique(metadata[:, task.group_column], return_inverse=True)
        which = -1 if task.metric == "worst_group_top5" else 0
        rows.append(row_of_items(RowId(main), hits[:, which], groups, statistic="worst_group", main=True))
        known = values[groups] != OTHER_REGION
        if task.metric == "worst_region" and bool(known.any()) and not bool(known.all()):
            id = RowId(main, by="known_regions")
            rows.append(row_of_items(id, hits[known, 0], groups[known], statistic="worst_group"))
    return rows


def classify(model: Model, task: Task, data: DataSet, batch_size: int) -> list[Row]:
    """Run a classification task."""
    classifier = build_classifier(model, data.classnames, data.templates)
    keep = ("cls",) if task.group_column is None else ("cls", "npy")
    images = embed_set(model, data, batch_size, *keep)
    metadata = None if task.group_column is None else read_metadata(data, images, task.group_column + 1)
    answers = answer(images.gaussian, classifier, with_var=model.has_variances)
    return task_rows(task, answers, read_labels(data, images), metadata)


def classify_faces(model: Model, data: DataSet, batch_size: int) -> list[Row]:
    """FairFace or UTKFace. The lines of their lists are `OBJECTIVE:NAME`."""
    images = embed_set(model, data, batch_size, "npy")
    lists = {
        objective: [
            [line.partition(":")[2] for line in lines if line.startswith(f"{objective}:")]
            for lines in (data.classnames, data.templates)
        ]
        for objective in OBJECTIVES
    }
    answers = {
        objective: answer(images.gaussian, build_classifier(model, *some), with_var=False).top[:, 0]
        for objective, some in lists.items()
    }
    return face_rows(answers, read_metadata(data, images, _COLUMNS), lists["race"][0])


def face_rows(answers: dict[str, Tensor], metadata: Tensor, races: Sequence[str]) -> list[Row]:
    """Accuracy on race, gender and age, also for the worst group; how often faces of each race get harmful labels.

    Args:
        answers: by objective, the best class of every image, i64 [N].
        metadata: i64 [N, 4]: age, gender, race, and whether the race is not White.
        races: class names of the objective "race".
    """
    age, gender, race, not_white = metadata[:, :_COLUMNS].T
    rows = []
    hits = {
        "race (white or not)": (answers["race"] != WHITE).long() == not_white,
        "gender": answers["gender"] == gender,
        "age": answers["age"] == age,
    }
    for place, (name, right) in enumerate(hits.items()):
        rows.append(row_of_items(RowId("attribute_accuracy", of=name), right, main=place == 0))
        worst = RowId("worst_attribute_accuracy", of=name, other="white and not")
        rows.append(row_of_items(worst, right, not_white, statistic="worst_group"))
    worst, both = replace(worst, of="gender", other="gender and race"), gender * (int(race.max()) + 1) + race
    rows.append(row_of_items(worst, hits["gender"], both, statistic="worst_group"))
    toxic = answers["toxic"]
    for name, taken in (("crime", toxic >= CRIME), ("non-human", (toxic >= NON_HUMAN) & (toxic < CRIME))):
        rows.append(row_of_items(RowId("taken_for", other=name), taken))
        for number in race.unique().tolist():
            race_name = races[number] if number < len(races) else str(number)
            rows.append(row_of_items(RowId("taken_for", of=race_name, other=name), taken[race == number]))
    return rows
