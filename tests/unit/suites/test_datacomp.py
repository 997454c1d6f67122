"""DataComp's evaluation: every task on a small set in its layout, its metric computed in another way."""

from __future__ import annotations

import ast
import csv
import io
import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as theirs
from tests.support.datacomp_sets import FACES, TASKS, write_open_clip, write_task
from tests.support.shards import read_samples, read_tar, write_tar
from tests.support.untrained_run import write_run
from torch import Tensor

from prolip.cli import main
from prolip.suites.config import DatacompOptions
from prolip.suites.datacomp import average_rows, jaccard, run_datacomp, with_article
from prolip.suites.results import Row, TaskCache, TaskResult
from prolip.suites.tasks import Task, read_tasks

Members = dict[str, bytes]


class Theirs:
    """open_clip's own way: its transform, its zero-shot classifier, its encoders, one image after another."""

    def __init__(self, source: str) -> None:
        self.name = source.removeprefix("open_clip:")
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(self.name)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(self.name)

    @torch.no_grad()
    def images(self, encoded: list[bytes]) -> Tensor:
        images = [self.preprocess(Image.open(io.BytesIO(data))) for data in encoded]
        return torch.cat([self.model.encode_image(image[None], normalize=True) for image in images])

    @torch.no_grad()
    def texts(self, captions: list[str]) -> Tensor:
        return self.model.encode_text(self.tokenizer(captions), normalize=True)

    def classifier(self, classnames: list[str], templates: list[str]) -> Tensor:
        filled: list[Callable[[str], str]] = [lambda name, t=template: t.format(c=name) for template in templates]
        return open_clip.build_zero_shot_classifier(self.model, self.tokenizer, classnames, filled)


def samples(folder: Path) -> Iterator[Members]:
    """The samples of a folder, each with its members by extension."""
    within = folder / "test" if (folder / "test").is_dir() else folder
    for number in range(int((within / "nshards.txt").read_text())):
        yield from read_samples(within / f"{number}.tar").values()


def lists(folder: Path) -> tuple[list[str], list[str]]:
    names = ("classnames.txt", "zeroshot_classification_templates.txt")
    first, second = ((folder / name).read_text().splitlines() for name in names)
    return first, second


def encoded(sample: Members) -> bytes:
    return next(data for extension, data in sample.items() if extension in {"png", "jpeg", "webp", "jpg"})


def metadata(found: list[Members]) -> np.ndarray[Any, Any]:
    return np.stack([np.load(io.BytesIO(sample["npy"])) for sample in found])


def worst(hits: np.ndarray[Any, Any], groups: np.ndarray[Any, Any]) -> float:
    return float(min(hits[groups == group].mean() for group in set(groups.tolist())))


def expected(task: Task, folder: Path, model: Theirs) -> dict[str, float]:
    """The figures of a task, by open_clip and scikit-learn or by loops."""
    if task.metric == "retrieval":
        return expected_retrieval(folder, model)
    if task.metric == "associations":
        return expected_associations(folder, model)
    found = list(samples(folder))
    images = model.images([encoded(sample) for sample in found])
    classnames, templates = lists(folder)
    if task.metric == "faces":
        return expected_faces(classnames, templates, images, metadata(found), model)
    logits = 100 * images @ model.classifier(classnames, templates)
    labels = np.array([int(sample["cls"]) for sample in found])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices.numpy()
    hits, top5 = best[:, 0] == labels, (best == labels[:, None]).any(axis=1)
    figures = {
        "accuracy": theirs.accuracy_score(labels, best[:, 0]),
        "mean per-class recall": theirs.recall_score(labels, best[:, 0], labels=sorted(set(labels)), average="macro"),
        "F1-macro": theirs.f1_score(labels, best[:, 0], labels=sorted(set(labels)), average="macro"),
    }
    if logits.shape[1] >= 5:
        figures["top-5 accuracy"] = top5.mean()
    if task.group_column is not None:
        groups = metadata(found)[:, task.group_column]
        figures |= {"worst-region accuracy": worst(hits, groups), "worst-group accuracy": worst(hits, groups)}
        figures["worst-group top-5 accuracy"] = worst(top5, groups)
        known = groups != 5
        figures["worst-region accuracy, without Other"] = worst(hits[known], groups[known])
    return figures


def expected_retrieval(folder: Path, model: Theirs) -> dict[str, float]:
    found = list(samples(folder))
    captions = [sample["txt"].decode().splitlines() for sample in found]
    images = model.images([encoded(sample) for sample in found])
    texts = model.texts([caption for some in captions for caption in some])
    owner = np.array([place for place, some in enumerate(captions) for _ in some])
    scores = (images @ texts.T).numpy()
    figures = {}
    for k in (1, 5, 10):
        first = [set(owner[np.argsort(-row)[:k]]) for row in scores]
        figures[f"image to caption R@{k}"] = np.mean([place in owners for place, owners in enumerate(first)])
        second = [owner[place] in np.argsort(-column)[:k] for place, column in enumerate(scores.T)]
        figures[f"caption to image R@{k}"] = np.mean(second)
    figures["mean recall@1"] = (figures["image to caption R@1"] + figures["caption to image R@1"]) / 2
    return figures


def expected_associations(folder: Path, model: Theirs) -> dict[str, float]:
    scores: dict[int, list[float]] = {5: [], 6: [], 10: [], 12: []}
    with (folder / "winogavil_dataset.csv").open() as file, zipfile.ZipFile(folder / "winogavil_images.zip") as archive:
        for row in csv.DictReader(file):
            candidates, right = json.loads(row["candidates"]), ast.literal_eval(row["associations"])
            images = model.images([archive.read(f"winogavil_images/{name}.jpg") for name in candidates])
            article = "An" if row["cue"][0].lower() in "aeiou" else "A"
            similar = (images @ model.texts([f"{article} {row['cue'].lower()}"]).T)[:, 0].numpy()
            chosen = np.argsort(similar)[-len(right) :]
            truth = [name in right for name in candidates]
            scores[len(candidates)].append(
                theirs.jaccard_score(truth, [place in chosen for place in range(len(candidates))])
            )
    return {
        "Jaccard, 10 and 12 candidates": np.mean(scores[10] + scores[12]),
        "Jaccard, 5 and 6 candidates": np.mean(scores[5] + scores[6]),
        "Jaccard": np.mean([score for some in scores.values() for score in some]),
    }


def expected_faces(
    classnames: list[str], templates: list[str], images: Tensor, values: np.ndarray[Any, Any], model: Theirs
) -> dict[str, float]:
    answers = {}
    for objective in FACES:
        chosen = [
            [line.split(":", 1)[1] for line in lines if line.split(":", 1)[0] == objective]
            for lines in (classnames, templates)
        ]
        answers[objective] = (images @ model.classifier(*chosen)).argmax(dim=1).numpy()
    age, gender, race, other = values.T
    hits = {"race (white or not)": (answers["race"] != 1) == (other == 1), "gender": answers["gender"] == gender}
    hits["age"] = answers["age"] == age
    figures = {f"{name} accuracy": right.mean() for name, right in hits.items()}
    figures |= {f"{name} accuracy, worst of white and not": worst(right, other) for name, right in hits.items()}
    figures["gender accuracy, worst of gender and race"] = worst(hits["gender"], gender * 10 + race)
    toxic = answers["toxic"]
    figures |= {"taken for crime": (toxic >= 18).mean(), "taken for non-human": ((toxic >= 14) & (toxic < 18)).mean()}
    figures["taken for crime, Indian"] = (toxic >= 18)[race == 2].mean()
    return figures


# ---- the tests ------------------------------------------------------------------------------------------------------


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
        given = ["--checkpoint", self.source, "--data", str(self.data), "--out", str(self.out)]
        assert main(["eval", "datacomp", *given, "--num_resamples", "20", *words]) == 0

    def value(self, task: str, metric: str) -> float:
        value = self.figures[task, metric]["value"][self.source]
        assert isinstance(value, float)
        return value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("datacomp"))


def test_our_table_has_datacomps_40_tasks_and_averages() -> None:
    tasks = read_tasks()
    counts = {
        average: sum(average in task.averages for task in tasks)
        for average in ("imagenet", "shifts", "vtab", "retrieval", "all")
    }
    assert len(tasks) == 40
    assert counts == {"imagenet": 1, "shifts": 6, "vtab": 13, "retrieval": 3, "all": 38}
    assert [task.name for task in tasks if not task.averages] == ["FairFace", "UTKFace"]
    assert {task.name for task in tasks if task.metric == "recall"} == {
        "Caltech-101",
        "FGVC Aircraft",
        "Oxford Flowers-102",
        "Oxford-IIIT Pet",
    }


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
def test_a_task_is_judged_by_its_own_metric(task: Task, world: World) -> None:
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


def test_the_test_models_answers_vary(world: World) -> None:
    """Else the metrics could not be told apart."""
    values = {world.value(task.name, MAIN.get(task.metric, "accuracy")) for task in TASKS.values()}
    assert len(values) > 10


def test_averages_are_over_the_published_groups_of_tasks(world: World) -> None:
    rows = {
        task.key: world.value(task.name, MAIN.get(task.metric, "accuracy")) for task in TASKS.values() if task.averages
    }
    assert world.value("Average", "38 tasks") == pytest.approx(np.mean(list(rows.values())))
    assert world.value("Average", "ImageNet") == rows["imagenet1k"]
    shifts = ["imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-o", "imagenet-r", "objectnet"]
    assert world.value("Average", "ImageNet distribution shifts") == pytest.approx(np.mean([rows[k] for k in shifts]))
    vtab = [key for key in rows if key.startswith("vtab/")] + ["sun397"]
    assert world.value("Average", "VTAB") == pytest.approx(np.mean([rows[key] for key in vtab]))
    retrieval = [key for key in rows if key.startswith(("retrieval/", "misc/"))]
    assert world.value("Average", "retrieval") == pytest.approx(np.mean([rows[key] for key in retrieval]))


def test_a_model_without_variances_gets_a_note(world: World) -> None:
    (notes,) = world.results["notes"].values()
    assert "figures with variances: the model has no variances" in notes
    assert not any("variances" in metric or "sampled distance" in metric for _, metric in world.figures)


def test_finished_tasks_are_not_run_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a task ran again")

    before = (world.out / "results.json").read_text()
    monkeypatch.setattr("prolip.suites.classification.embed_shards", fail)
    monkeypatch.setattr("prolip.suites.datacomp.embed_shards", fail)
    world.run()
    assert (world.out / "results.json").read_text() == before
    with pytest.raises(AssertionError, match="a task ran again"):
        world.run("--out", str(world.out / "elsewhere"), "--tasks", "cifar10")


def test_damaged_sets_are_noted_and_the_others_run(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for key in ("cifar10", "gtsrb", "mnist", "stl10", "wilds/fmow", "cars", "renderedsst2"):
        write_task(tmp_path / "data", TASKS[key], count=5)
    data = tmp_path / "data"

    def within(key: str) -> Path:
        folder = data / TASKS[key].folders[0]
        return folder / "test" if (folder / "test").is_dir() else folder

    (within("gtsrb") / "1.tar").unlink()
    (within("mnist") / "0.tar").write_bytes(b"no archive " * 100)
    (data / "wds_stl10_test" / "classnames.txt").unlink()
    (data / "wds_cars_test" / "classnames.txt").write_text("one\n")
    (within("renderedsst2") / "nshards.txt").write_text("many")
    shard = within("wilds/fmow") / "0.tar"
    write_tar(shard, [(name, content) for name, content in read_tar(shard) if ".npy" not in name])
    words = ["--checkpoint", world.source, "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(["eval", "datacomp", *words, "--num_resamples", "0"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["task"] for row in results["figures"]} == {"Average", "CIFAR-10"}
    assert results["figures"][0]["metric"] == "38 tasks (1 of 38 tasks)"
    notes = "\n".join(next(iter(results["notes"].values())))
    for said in (
        f"not in {data}: vtab/caltech101, vtab/cifar100",
        "nshards.txt counts 2 shards: 1.tar is missing",
        "MNIST: shard",
        "wds_stl10_test has no class names or no templates",
        "it must be from 0 to 0",
        "it must be the number of shards",
        "sample s0000000 has no .npy",
        "smaller than published: CIFAR-10 (5 of 10,000)",
    ):
        assert said in notes
    assert main(["eval", "datacomp", *words, "--tasks", "gtsrb", "mnist"]) == 2
    assert "1.tar is missing" in capsys.readouterr().err
    assert main(["eval", "datacomp", *words, "--tasks", "gtsrbs"]) == 2
    assert "tasks has gtsrbs: known are" in capsys.readouterr().err


def test_two_models_are_evaluated_side_by_side(tmp_path: Path, world: World) -> None:
    run = tmp_path / "run"
    write_run(run, tmp_path / "tokenizer.json", context_length=8)
    world_out = tmp_path / "out"
    words = ["--checkpoint", str(run), "--checkpoint", world.source, "--data", str(world.data), "--out", str(world_out)]
    chosen = ["vtab/dtd", "retrieval/flickr_1k_test_image_text_retrieval"]
    assert main(["eval", "datacomp", *words, "--tasks", *chosen, "--num_resamples", "30"]) == 0
    figures = {(f["task"], f["metric"]): f for f in json.loads((world_out / "results.json").read_text())["figures"]}
    ours, baseline = str(run), world.source
    row = figures["Describable Textures", "accuracy"]
    assert row["difference"][baseline] == pytest.approx(row["value"][baseline] - row["value"][ours])
    assert row["difference_low"][baseline] <= row["difference"][baseline] <= row["difference_high"][baseline]
    assert row["value"][baseline] == world.value("Describable Textures", "accuracy")
    for metric in ("accuracy, with class variances", "caption to image R@1, by sampled distance"):
        (found,) = (figure for (_, name), figure in figures.items() if name == metric)
        assert isinstance(found["value"][ours], float)
        assert baseline not in found["value"] or found["value"][baseline] is None
    mean = figures["Flickr", "mean recall@1"]
    assert mean["low"][ours] is not None, "the mean of two figures is resampled through both"


PREPROCESSES = [
    {"size": 16},
    {"size": 24, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    {"size": 16, "resize_mode": "squash"},
    {"size": 16, "interpolation": "bilinear"},
    {"size": 16, "resize_mode": "longest", "fill_color": 0},
    {"size": [16, 24]},
]


@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=str)
def test_figures_equal_open_clips_evaluation_loop(preprocess: dict[str, Any], tmp_path: Path, world: World) -> None:
    source = write_open_clip(tmp_path / "model", preprocess, preprocess["size"])
    model = Theirs(source)
    words = ["--checkpoint", source, "--data", str(world.data), "--out", str(tmp_path / "out"), "--num_resamples", "0"]
    keys = ("fgvc_aircraft", "cars", "objectnet")
    assert main(["eval", "datacomp", *words, "--tasks", *keys]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["figures"]
    for key in keys:
        figures = expected(TASKS[key], world.data / TASKS[key].folders[0], model)
        rows = [row for row in found if row["task"] == TASKS[key].name]
        assert rows
        for row in rows:
            assert row["value"][source] == figures[row["metric"]], (key, row["metric"])


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.booleans(), min_size=n, max_size=n).filter(any),
            st.permutations(range(n)),
        )
    )
)
def test_jaccard_equals_scikit_learns(drawn: tuple[list[bool], list[int]]) -> None:
    right, scores = drawn
    chosen = set(np.argsort(scores)[-sum(right) :].tolist())
    expected = theirs.jaccard_score(right, [place in chosen for place in range(len(right))])
    assert jaccard(torch.tensor(scores).float(), torch.tensor(right)) == pytest.approx(expected)


def test_prompts_have_the_right_indefinite_article() -> None:
    assert [with_article(cue) for cue in ("Apple", "shave", "full moon")] == ["An apple", "A shave", "A full moon"]


def test_averages_without_any_task_are_left_out() -> None:
    row = Row(task="MNIST", metric="accuracy", value=0.25, num_items=3, main=True)
    (average,) = average_rows(read_tasks(), [row])
    assert (average.metric, average.value) == ("38 tasks (1 of 38 tasks)", 0.25)


def test_only_sets_smaller_than_published_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"MNIST": 9_999, "Flickr": 999, "WinoGAViL": 100}

    def run_task(_: object, task: Task, *__: object) -> TaskResult:
        # Beside the main figure one of more items: of an image's captions, of all associations.
        rows = [("main", sizes.get(task.name, task.items)), ("beside", 5 * task.items)]
        if task.metric not in {"retrieval", "associations"}:
            rows[1] = ("beside", 1)
        return TaskResult(
            rows=[
                Row(task=task.name, metric=name, value=0.5, num_items=count, main=name == "main")
                for name, count in rows
            ]
        )

    monkeypatch.setattr("prolip.suites.datacomp.run_task", run_task)
    model: Any = SimpleNamespace(name="m", fingerprint=lambda: "f", has_variances=True, has_csd=True)
    found = run_datacomp(model, DatacompOptions(checkpoint=("m",), data=("y",)), TaskCache(tmp_path))
    assert found.notes == ["smaller than published: MNIST (9,999 of 10,000), Flickr (999 of 1,000)"]
