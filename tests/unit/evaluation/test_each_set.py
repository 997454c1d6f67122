"""A data set that fails is reported, and the others are evaluated."""

from __future__ import annotations

import pytest
import torch
from tests.support.captioned_world import CaptionedWorld
from tests.support.suite_results import row_of_items

from prolip.errors import UserError
from prolip.evaluation.each_set import evaluate_sets
from prolip.evaluation.results import TaskResult
from prolip.pretrained.open import load


def evaluate(name: str, source: str, fingerprint: str) -> TaskResult:
    if source.endswith("wrong"):
        raise UserError("it has no shard")
    if source.endswith("gone"):
        raise FileNotFoundError("no such folder")
    return TaskResult(rows=[row_of_items(name, fingerprint, torch.tensor([1.0, 0.0]))], notes=[f"{name}: small"])


def sets(*names: str) -> dict[str, str]:
    return {name: f"a/{name}" for name in names}


def test_a_set_that_fails_is_noted_and_the_others_run(world: CaptionedWorld) -> None:
    model = load(world.ours)
    found = evaluate_sets("retrieval", model, sets("one", "wrong", "gone", "two"), evaluate)
    assert [(row.task, row.metric) for row in found.rows] == [(name, model.fingerprint()) for name in ("one", "two")]
    assert found.notes == ["one: small", "wrong: it has no shard", "gone: no such folder", "two: small"]
    assert (found.suite, found.model, found.fingerprint) == ("retrieval", model.name, model.fingerprint())


def test_if_no_set_can_be_evaluated_it_is_an_error(world: CaptionedWorld) -> None:
    with pytest.raises(UserError, match="wrong: it has no shard; gone: no such folder"):
        evaluate_sets("retrieval", load(world.ours), sets("wrong", "gone"), evaluate)


def test_an_unexpected_exception_is_raised_and_not_noted(world: CaptionedWorld) -> None:
    def broken(*_: object) -> TaskResult:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate_sets("retrieval", load(world.ours), sets("a"), broken)
