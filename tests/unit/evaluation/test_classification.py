"""Every figure of a classification task on random answers, against scikit-learn or a loop; no model is needed."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs
from tests.support.captioned_sets import WORDS
from tests.support.captioned_world import CaptionedWorld
from tests.support.datacomp_sets import TASKS

from prolip.evaluation import classification
from prolip.evaluation.classification import Answers
from prolip.evaluation.datacomp import face_rows, task_rows
from prolip.gaussian import Gaussian
from prolip.metrics.zero_shot import Classifier, zero_shot_logits

COUNT, CLASSES = 400, 9
Numbers = np.ndarray[Any, Any]


def drawn(seed: int) -> tuple[Answers, Numbers, Numbers]:
    """Answers that are right now and then, labels of which a class is missing, and groups of six in both columns."""
    noise = np.random.default_rng(seed)
    labels = noise.integers(0, CLASSES - 1, COUNT)
    scores = noise.random((2, COUNT, CLASSES))
    scores[:, np.arange(COUNT), labels] += 0.3 * (labels % 4)
    best = [torch.from_numpy(np.argsort(-one, axis=1)[:, :5].copy()) for one in scores]
    return Answers(*best), labels, noise.integers(0, 6, (COUNT, 2))


def by_group(right: Numbers, groups: Numbers) -> list[float]:
    return [float(right[groups == group].mean()) for group in np.unique(groups)]


@pytest.mark.parametrize("seed", range(3))
def test_classification_metrics_equal_scikit_learns_on_random_answers(seed: int) -> None:
    answers, labels, groups = drawn(seed)
    assert answers.best_with_var is not None
    first, right = answers.best[:, 0].numpy(), answers.best.numpy() == labels[:, None]
    known = groups[:, 0] != 5
    expected = {
        "accuracy": theirs.accuracy_score(labels, first),
        "top-5 accuracy": right.any(axis=1).mean(),
        "mean per-class recall": theirs.recall_score(labels, first, labels=range(CLASSES - 1), average="macro"),
        "F1-macro": theirs.f1_score(labels, first, labels=range(CLASSES - 1), average="macro"),
        "worst-region accuracy": min(by_group(right[:, 0], groups[:, 0])),
        "worst-region accuracy, without Other": min(by_group(right[known, 0], groups[known, 0])),
        "worst-group accuracy": min(by_group(right[:, 0], groups[:, 0])),
        "worst-group top-5 accuracy": min(by_group(right.any(axis=1), groups[:, 0])),
        "accuracy, with class variances": theirs.accuracy_score(labels, answers.best_with_var[:, 0].numpy()),
    }
    seen = set()
    for task in TASKS.values():
        if task.metric not in {"retrieval", "associations", "faces"}:
            rows = task_rows(task, answers, torch.from_numpy(labels), torch.from_numpy(groups))
            assert {row.metric: row.value for row in rows} == pytest.approx(
                {row.metric: expected[row.metric] for row in rows}
            )
            assert [row.task for row in rows] == [task.name] * len(rows)
            assert sum(row.main for row in rows) == 1
            seen |= {row.metric for row in rows}
    assert seen == expected.keys()


def test_fairface_metrics_equal_direct_computation() -> None:
    noise = np.random.default_rng(4)
    age, gender, race = (noise.integers(0, count, COUNT) for count in (9, 2, 7))
    other = (race != 1).astype(int)
    sizes = {"race": 7, "gender": 2, "age": 9, "toxic": 21}
    answers = {objective: noise.integers(0, size, COUNT) for objective, size in sizes.items()}
    for objective, truth in (("gender", gender), ("age", age), ("race", race)):
        told = noise.random(COUNT) < 0.2 + 0.1 * race  # the better the larger the race's number
        answers[objective] = np.where(told, truth, answers[objective])
    right = {
        "race (white or not)": (answers["race"] != 1) == (other == 1),
        "gender": answers["gender"] == gender,
        "age": answers["age"] == age,
    }
    expected = {f"{name} accuracy": float(hits.mean()) for name, hits in right.items()}
    expected |= {f"{name} accuracy, worst of white and not": min(by_group(h, other)) for name, h in right.items()}
    both = [right["gender"][(gender == one) & (race == two)].mean() for one, two in product(range(2), range(7))]
    expected["gender accuracy, worst of gender and race"] = float(min(both))
    # Classes 14 to 17 of the last objective are no people, those from 18 on are crimes.
    toxic, races = answers["toxic"], [f"race {number}" for number in range(7)]
    for name, taken in (("crime", toxic >= 18), ("non-human", np.isin(toxic, [14, 15, 16, 17]))):
        expected[f"taken for {name}"] = float(taken.mean())
        expected |= {f"taken for {name}, {races[k]}": float(taken[race == k].mean()) for k in range(7)}
    values = torch.from_numpy(np.stack([age, gender, race, other], axis=1))
    given = {objective: torch.from_numpy(some) for objective, some in answers.items()}
    rows = face_rows("FairFace", given, values, races)
    assert {row.metric: row.value for row in rows} == pytest.approx(expected)
    assert [row.metric for row in rows if row.main] == ["race (white or not) accuracy"]
    assert len({round(value, 6) for value in expected.values()}) > len(expected) - 3, "else rows could be exchanged"


def test_block_sizes_do_not_change_the_answers(world: CaptionedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the images nor the classes that are worked on at a time change anything."""
    draw = torch.Generator().manual_seed(0)
    images = Gaussian.point(torch.randn(23, 8, generator=draw))
    classes = Classifier(torch.randn(7, 8, generator=draw), torch.rand(7, 8, generator=draw))
    whole = classification.answer(images, classes, with_var=True)
    assert whole.best.shape == (23, 5)
    logits = zero_shot_logits(images.mean, classes.weight, classes.total_var, logit_scale=1.0)
    assert whole.best_with_var is not None
    assert whole.best_with_var.equal(logits.argsort(dim=1, descending=True)[:, :5])
    templates = ["a picture of {c}", "{c}", "an emoji: {c}"]
    built = classification.build_classifier(world.model, WORDS, templates)
    monkeypatch.setattr(classification, "_ROWS", 5)
    monkeypatch.setattr(classification, "_TEXTS", 7)  # two classes of three templates
    parts = classification.answer(images, classes, with_var=True)
    assert parts.best.equal(whole.best)
    assert parts.best_with_var is not None
    assert parts.best_with_var.equal(whole.best_with_var)
    for ours, other in zip(classification.build_classifier(world.model, WORDS, templates), built, strict=True):
        torch.testing.assert_close(ours, other)
