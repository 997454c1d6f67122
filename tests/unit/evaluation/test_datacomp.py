"""DataComp's evaluation: every task on a small set in its layout, its metric computed in another way."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from sklearn import metrics as theirs
from tests.support.datacomp_reference import Theirs, expected
from tests.support.datacomp_sets import FACES, TASKS, write_open_clip, write_task
from tests.support.flags import latest

from prolip.cli import main
from prolip.evaluation.datacomp import jaccard, with_article


class World:
    """All tasks' folders, and what the command found of them."""

    def __init__(self, root: Path) -> None:
        self.data, self.out = root / "data", root / "out"
        for task in TASKS.values():
            write_task(self.data, task)
        self.source = write_open_clip(root / "model")
        self.theirs = Theirs(self.source)
        self.run()
        self.results = json.loads((self.out / "results.json").read_text())
        self.figures = {(row["task"], row["metric"]): row for row in self.results["figures"]}

    def run(self, *words: str) -> None:
        given = ["--checkpoint", self.source, *f"--data {self.data} --out {self.out}".split()]
        assert main(latest(["eval", "datacomp", *given, "--num_resamples", "20", *words])) == 0

    def value(self, task: str, metric: str) -> float:
        value = self.figures[task, metric]["value"][self.source]
        assert isinstance(value, float)
        return value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("datacomp"))


MAIN = {
    "recall": "mean per-class recall",
    "f1": "F1-macro",
    "worst_region": "worst-region accuracy",
    "worst_group": "worst-group accuracy",
    "worst_group_top5": "worst-group top-5 accuracy",
    "retrieval": "mean recall@1",
    "associations": "Jaccard, 10 and 12 candidates",
    "faces": "race (white or not) accuracy",
}


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.key)
def test_a_task_is_judged_by_its_own_metric(task, world):
    figures = expected(task, world.data / task.folders[0], world.theirs)
    (judged,) = (row for row in world.results["figures"] if row["task"] == task.name and row["main"])
    assert judged["metric"] == MAIN.get(task.metric, "accuracy")
    found = {metric: world.value(name, metric) for name, metric in world.figures if name == task.name}
    for metric, value in found.items():
        if metric in figures:
            assert value == pytest.approx(float(figures[metric]), abs=1e-9), metric
    # Rows without a counterpart are other groups' rates.
    assert {metric for metric in found if metric not in figures} <= {
        f"taken for {name}, {race}" for name in ("crime", "non-human") for race in FACES["race"]
    }
    assert judged["low"][world.source] <= judged["high"][world.source]


def test_a_model_without_variances_gets_a_note(world):
    (notes,) = world.results["notes"].values()
    assert "figures with variances: the model has no variances" in notes
    assert not any("variances" in metric or "sampled distance" in metric for _, metric in world.figures)


def test_finished_tasks_are_not_run_again(world, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a task ran again")

    before = (world.out / "results.json").read_text()
    monkeypatch.setattr("prolip.evaluation.datacomp.embed_set", fail)
    world.run()
    assert (world.out / "results.json").read_text() == before
    with pytest.raises(AssertionError, match="a task ran again"):
        world.run("--out", str(world.out / "elsewhere"), "--tasks", "cifar10")


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
    assert {row["task"] for row in results["figures"]} == {"Average", "CIFAR-10"}
    assert results["figures"][0]["metric"] == "38 tasks (1 of 38 tasks)"
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
