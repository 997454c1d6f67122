"""DataComp's evaluation: every task on a small set in its layout, its metric computed in another way."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from sklearn import metrics as theirs
from tests.support.datacomp_reference import Theirs, expected
from tests.support.datacomp_sets import FACES, TASKS, write_open_clip, write_task
from tests.support.flags import latest
from tests.support.suite_results import values

from prolip.cli import main
from prolip.evaluation.datacomp import jaccard, with_article
from prolip.evaluation.results import RowId


class World:
    """All tasks' folders, and what the command found of them."""

    def __init__(self, root):
        self.data, self.out = root / "data", root / "out"
        for task in TASKS.values():
            write_task(self.data, task)
        self.source = write_open_clip(root / "model")
        self.theirs = Theirs(self.source)
        self.run()
        self.results = json.loads((self.out / "results.json").read_text())

    def run(self, *words):
        given = ["--checkpoint", self.source, *f"--data {self.data} --out {self.out}".split()]
        assert main(latest(["eval", "datacomp", *given, "--num_resamples", "20", *words])) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("datacomp"))


MAIN = {
    "accuracy": RowId("accuracy"),
    "recall": RowId("class_recall"),
    "f1": RowId("f1_macro"),
    "worst_region": RowId("worst_region_accuracy"),
    "worst_group": RowId("worst_group_accuracy"),
    "worst_group_top5": RowId("worst_group_top5_accuracy"),
    "retrieval": RowId("mean_recall"),
    "associations": RowId("jaccard", by="many_candidates"),
    "faces": RowId("attribute_accuracy", of="race (white or not)"),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.key)
def test_a_task_is_judged_by_its_own_metric(task, world):
    figures = expected(task, world.data / task.folders[0], world.theirs)
    (judged,) = (row for row in world.results["figures"] if row["id"]["data"] == task.name and row["main"])
    assert RowId(**judged["id"]) == replace(MAIN[task.metric], data=task.name)
    found = values(world.results, data=task.name)
    for id, value in found.items():
        # Rows without a counterpart are other groups' rates.
        assert id in figures or (id.measure == "taken_for" and id.of in FACES["race"])
        assert value == pytest.approx(float(figures.get(id, value)), abs=1e-9), id
    assert judged["low"][world.source] <= judged["high"][world.source]


def test_a_model_without_variances_gets_a_note(world):
    (notes,) = world.results["notes"].values()
    assert "figures with variances: the model has no variances" in notes
    assert not any("variances" in id.measure or id.by == "csd" for id in values(world.results))


def test_absent_small_and_damaged_sets_are_noted(tmp_path, world, capsys):
    data = tmp_path / "data"
    for key in ("cifar10", "gtsrb", "wilds/fmow"):
        write_task(data, TASKS[key], count=5)
    next((data / TASKS["gtsrb"].folders[0]).rglob("1.tar")).unlink()
    shard = next((data / TASKS["wilds/fmow"].folders[0]).rglob("0.tar"))
    shard.write_bytes(shard.read_bytes()[:2000])
    words = ["--checkpoint", world.source, *f"--data {data} --out {tmp_path}/out".split()]
    assert main(["eval", "datacomp", *words, "--num_resamples", "0"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["id"]["data"] for row in results["figures"]} == {"Average", "CIFAR-10"}
    average = results["figures"][0]
    assert (average["id"]["at"], average["num_items"]) == (38, 1)
    (notes,) = results["notes"].values()
    for said in (f"not in {data}: Caltech-101", "CIFAR-10: smaller", "GTSRB: ", "FMoW: "):
        assert any(said in note for note in notes), said
    assert main(["eval", "datacomp", *words, "--tasks", "gtsrb"]) == 2
    assert "1.tar" in capsys.readouterr().err
    assert main(["eval", "datacomp", *words, "--tasks", "gtsrbs"]) == 2
    assert "tasks" in capsys.readouterr().err


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.booleans(), min_size=n, max_size=n).filter(any),
            st.permutations(range(n)),
        )
    )
)
def test_jaccard_equals_scikit_learns(drawn):
    right, scores = drawn
    chosen = set(np.argsort(scores)[-sum(right) :].tolist())
    expected = theirs.jaccard_score(right, [place in chosen for place in range(len(right))])
    assert jaccard(torch.tensor(scores).float(), torch.tensor(right)) == pytest.approx(expected)


def test_prompts_have_the_right_indefinite_article():
    assert [with_article(cue) for cue in ("Apple", "shave", "full moon")] == ["An apple", "A shave", "A full moon"]
