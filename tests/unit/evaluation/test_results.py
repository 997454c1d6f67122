"""What all suites share: row statistics, saved results of finished tasks, models side by side, result files."""

from __future__ import annotations

from copy import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.support.suite_results import hits

from prolip.evaluation.results import Row, TaskCache, TaskResult, row_of_items


def test_a_row_without_items_is_refused() -> None:
    with pytest.raises(ValueError, match="t: m needs at least one item"):
        row_of_items("t", "m", torch.zeros(0))


def test_a_finished_task_is_not_run_again(tmp_path: Path) -> None:
    calls = []

    def compute() -> TaskResult:
        calls.append(1)
        return TaskResult(rows=[row_of_items("t", "m", hits(0.5))], notes=["left out"])

    cache = TaskCache(tmp_path / "tasks")
    first = cache.get_or_run("vtab/dtd", {"model": "x", "data": 1}, compute)
    assert cache.get_or_run("vtab/dtd", {"data": 1, "model": "x"}, compute) == first
    assert len(calls) == 1
    cache.get_or_run("vtab/dtd", {"model": "y", "data": 1}, compute)
    cache.get_or_run("vtab/pets", {"model": "x", "data": 1}, compute)
    assert len(calls) == 3
    (path,) = (tmp_path / "tasks").glob("vtab_pets-*.json")
    path.write_text("{}")  # of an older commit
    cache.get_or_run("vtab/pets", {"model": "x", "data": 1}, compute)
    assert len(calls) == 4

    def fail() -> TaskResult:
        raise ValueError("no such folder")

    with pytest.raises(ValueError, match="no such folder"):
        cache.get_or_run("new", {}, fail)
    assert not list((tmp_path / "tasks").glob("new*"))


def test_tasks_of_long_names_are_stored_and_told_apart(tmp_path: Path) -> None:
    cache = TaskCache(tmp_path)
    names = [f"{'a/long/path/' * 40}{end}" for end in "ab"]
    results = [TaskResult(rows=[Row(task=name, metric="accuracy", value=0.5, num_items=2)]) for name in names]
    for name, result in zip(names, results, strict=True):
        assert cache.get_or_run(name, {}, partial(copy, result)) == result
    assert [cache.get_or_run(name, {}, lambda: results[0]) for name in names] == results


def test_a_task_that_another_version_finished_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its measures may have changed since."""
    cache = TaskCache(tmp_path / "tasks")
    old, new = (TaskResult(rows=[row_of_items("t", "m", hits(share))]) for share in (0.5, 0.6))
    monkeypatch.setattr("prolip.evaluation.results.version", lambda _: "0.1.0")
    cache.get_or_run("t", {}, lambda: old)
    monkeypatch.setattr("prolip.evaluation.results.version", lambda _: "0.2.0")
    assert cache.get_or_run("t", {}, lambda: new) == new
