"""A finished task is run again exactly if its model, its data or a setting of its figures changed."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.captioned_sets import write_hierarchies, write_pairs
from tests.support.datacomp_sets import TASKS, write_task

from prolip.evaluation.config import (
    DatacompOptions,
    HierarcapsOptions,
    HierarimgsOptions,
    RetrievalOptions,
    SuiteOptions,
    UncertaintyOptions,
    ZeroShotOptions,
)
from prolip.evaluation.datacomp import run_datacomp
from prolip.evaluation.hierarchies import run_hierarcaps, run_hierarimgs
from prolip.evaluation.results import Row, RowId, TaskCache, TaskResult
from prolip.evaluation.retrieval import run_retrieval
from prolip.evaluation.uncertainty import run_uncertainty
from prolip.evaluation.zero_shot import run_zero_shot
from prolip.metrics.config import BprwConfig, TraversalConfig
from prolip.store.typed_tables import plain


class Recording(TaskCache):
    """Runs nothing, and keeps what each task's result would depend on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: list[str] = []

    def get_or_run(self, name: str, key: object, compute: Callable[[], TaskResult]) -> TaskResult:
        self.seen.append(f"{name} {plain(key)}")
        return TaskResult(rows=[Row(id=RowId("accuracy"), value=0.5, num_items=1, main=True)])


class Named:
    """A model of which nothing but its name, its fingerprint and its kind of variances is asked."""

    has_variances = True
    has_variances = True
    search_calibration = None
    calibration = None

    def __init__(self, fingerprint: str = "f") -> None:
        self.name = "m"
        self.fingerprint = lambda: fingerprint


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    write_pairs(root / "pairs")
    write_hierarchies(root / "hierarchies")
    write_task(root / "sets", TASKS["vtab/dtd"])
    return root


SUITES: dict[str, tuple[Any, type[SuiteOptions], dict[str, Any], list[dict[str, Any]], str]] = {
    "datacomp": (run_datacomp, DatacompOptions, {"tasks": ("vtab/dtd",)}, [], "sets/wds_vtab-dtd_test/classnames.txt"),
    "zero_shot": (
        run_zero_shot,
        ZeroShotOptions,
        {},
        [
            {"templates": ("{}!",)},
            {"prompt_weights": ("bprw",)},
            {"bprw": BprwConfig(seed=1)},
            {"few_shot": BprwConfig(alpha=3.0)},
            {"voters": "pairs"},
        ],
        "pairs/test/1.tar",
    ),
    "retrieval": (
        run_retrieval,
        RetrievalOptions,
        {},
        [{"caption_key": "sentences.raw"}, {"image_id_key": "cocoid", "caption_ids_key": "sentids"}, {"seed": 5}],
        "pairs/test/0.tar",
    ),
    "uncertainty": (
        run_uncertainty,
        UncertaintyOptions,
        {},
        [{"caption_key": "txt"}, {"num_bins": 3}, {"keep_ratio": 0.5}, {"blur": 0.1}, {"show": 1}],
        "pairs/test/1.tar",
    ),
    "hierarcaps": (
        run_hierarcaps,
        HierarcapsOptions,
        {},
        [{"walk": TraversalConfig(num_steps=7)}, {"walk": TraversalConfig(root_weight=2.0)}],
        "hierarchies/h3.png",
    ),
    "hierarimgs": (
        run_hierarimgs,
        HierarimgsOptions,
        {},
        [{"walk": TraversalConfig(root_only=True)}],
        "hierarchies/table.csv",
    ),
}


@pytest.mark.parametrize("suite", SUITES)
def test_a_task_is_run_again_when_what_it_depends_on_has_changed(suite, root, tmp_path):
    run, kind, given, changes, file = SUITES[suite]
    where = {"pairs": root / "pairs", "hierarchies": root / "hierarchies", "sets": root / "sets"}[file.split("/")[0]]
    data = where if suite.startswith("hierar") else (str(where),)
    options = kind(checkpoint=("m",), data=data, **given)
    changes = [one | ({"voters": str(where)} if "voters" in one else {}) for one in changes]

    def seen(model: Named, options: SuiteOptions) -> str:
        finished = Recording(tmp_path / "tasks")
        assert run(model, options, finished).rows
        (one,) = finished.seen
        return one

    before = seen(Named(), options)
    same = {"batch_size": 7, "num_resamples": 3, "out": tmp_path}
    assert seen(Named(), dataclasses.replace(options, **same)) == before
    settings = {seen(Named("g"), options), *(seen(Named(), dataclasses.replace(options, **one)) for one in changes)}
    assert len(settings | {before}) == 2 + len(changes)
    status = (root / file).stat()
    os.utime(root / file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    if file.endswith("classnames.txt"):  # of the lists the words count
        assert seen(Named(), options) == before
        (root / file).write_text("one\ntwo\nthree\nfour\nfive\nsix\nseven\n")
    assert seen(Named(), options) not in settings | {before}
