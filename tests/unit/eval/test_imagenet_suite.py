"""ImageNet with prompts: the suite's figures against the functions behind them, on small sets of the layout."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.eval.sample_tasks import picture, write_lists, write_open_clip, write_shards
from tests.unit.sample_run import write_run
from torch import Tensor

from prolip.cli import main
from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.eval.bprw import reweight_prompts
from prolip.eval.config import BprwConfig
from prolip.eval.prompts import WithinSpread, filter_prompts
from prolip.eval.zero_shot import Classifier, aggregate_prompts, zero_shot_logits
from prolip.gaussian import Gaussian
from prolip.pretrained.eval_model import EvalModel
from prolip.pretrained.open import open_eval_model
from prolip.suites.imagenet import LabelledSet, relabelled

CLASSES = ["animals", "nature", "food", "travel"]
TEMPLATES = ["a picture of {c}", "an emoji: {c}", "{c} and travel", "{c}"]
SETS = {
    "imagenet1k": (CLASSES, 6),
    "imagenetv2": (CLASSES, 3),
    "imagenet-a": (["travel", "nature"], 5),
    "imagenet-r": (["food", "a nature"], 5),
}
"""Class names and pictures a class."""
RULE = BprwConfig(alpha=2.0, num_neighbors=2, num_draws=3)


def write_set(root: Path, name: str) -> None:
    draw = random.Random(name)
    classnames, each = SETS[name]
    folder = root / f"wds_{name}_test"
    write_lists(folder, classnames, TEMPLATES)
    samples = [
        [(f"s{number:07}.png", picture(draw)), (f"s{number:07}.cls", str(number % len(classnames)).encode())]
        for number in range(each * len(classnames))
    ]
    write_shards(folder / "test", samples)


class World:
    def __init__(self, root: Path) -> None:
        self.data, self.out = root / "data", root / "out"
        for name in SETS:
            write_set(self.data, name)
        run = root / "run"
        write_run(run, root / "tokenizer.json", context_length=6)
        self.names = [str(run), write_open_clip(root / "clip")]
        words = [word for name in self.names for word in ("--checkpoint", name)]
        words += ["--data", str(self.data), "--out", str(self.out), "--num_resamples", "20", "--few_shot.num_draws"]
        words += ["3", "--few_shot.num_neighbors", "2", "--nearest.num_neighbors", "4"]
        assert main(["eval", "imagenet", *words]) == 0
        self.results = json.loads((self.out / "results.json").read_text())
        self.model = open_eval_model(str(run), None, torch.device("cpu"))

    def figure(self, task: str, metric: str) -> dict[str, Any]:
        (found,) = (row for row in self.results["figures"] if (row["task"], row["metric"]) == (task, metric))
        assert isinstance(found, dict)
        return found

    def value(self, task: str, metric: str, model: int = 0) -> float:
        value = self.figure(task, metric)["value"][self.names[model]]
        assert isinstance(value, float)
        return value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("imagenet"))


def prompts_of(model: EvalModel, classnames: list[str]) -> Gaussian:
    rows = [embed_captions(model, [template.format(c=name) for template in TEMPLATES]) for name in classnames]
    return Gaussian(torch.stack([row.mean for row in rows]), torch.stack([row.log_var for row in rows]))


def pictures_of(world: World, name: str) -> LabelledSet:
    shards = [str(world.data / f"wds_{name}_test" / "test" / f"{number}.tar") for number in range(2)]
    images = embed_shards(world.model, shards).gaussian
    return LabelledSet(images, torch.arange(len(images.mean)) % len(SETS[name][0]), SETS[name][0])


def share(
    pictures: LabelledSet, classifier: Classifier, *, with_var: bool = False, rows: Tensor | None = None
) -> float:
    var = classifier.total_var if with_var else None
    right = zero_shot_logits(pictures.images.mean, classifier.weight, var).argmax(dim=1) == pictures.labels
    return float((right if rows is None else right[rows]).double().mean())


@pytest.mark.parametrize(("name", "task"), [("imagenet1k", "ImageNet"), ("imagenet-a", "ImageNet-A")])
def test_methods_are_those_of_their_functions(name: str, task: str, world: World) -> None:
    pictures, prompts = pictures_of(world, name), prompts_of(world.model, SETS[name][0])
    nearest = reweight_prompts(prompts, pictures.images, BprwConfig(num_neighbors=4)).as_classifier()
    methods = {
        "even prompts": aggregate_prompts(prompts),
        "prompts up to the mean uncertainty": filter_prompts(prompts, WithinSpread(num_std=0.0)),
        "BPRW, nearest": nearest,
    }
    for method, classifier in methods.items():
        assert world.value(task, f"accuracy, {method}") == share(pictures, classifier)
        found = world.value(task, f"accuracy, {method}, with class variances")
        assert found == share(pictures, classifier, with_var=True)
    gain = share(pictures, nearest) - share(pictures, methods["even prompts"])
    assert world.value(task, "gain of BPRW, nearest over even prompts") == pytest.approx(gain)
    assert world.figure(task, "accuracy, even prompts")["main"]


def test_the_few_shots_are_imagenets_and_are_not_scored(world: World) -> None:
    pictures = pictures_of(world, "imagenet1k")
    weights = reweight_prompts(
        prompts_of(world.model, CLASSES), pictures.images, RULE, labels=pictures.labels
    ).as_classifier()
    others = torch.arange(len(pictures.labels)) >= 2 * len(CLASSES)  # the first two of each class vote
    metric = "accuracy, BPRW, few-shot"
    assert world.figure("ImageNet", metric)["num_items"] == int(others.sum()) == 16
    assert world.value("ImageNet", metric) == share(pictures, weights, rows=others)
    even = aggregate_prompts(prompts_of(world.model, CLASSES))
    assert world.value("ImageNet", "accuracy, even prompts, without the few shots") == share(
        pictures, even, rows=others
    )


def test_a_set_of_fewer_classes_takes_its_few_shots_from_imagenet(world: World) -> None:
    voters, pictures = pictures_of(world, "imagenet1k"), pictures_of(world, "imagenet-a")
    labels = torch.tensor([-1, 1, -1, 0])[voters.labels]  # travel, nature
    assert relabelled(voters, pictures.classnames, "ImageNet").tolist() == labels.tolist()
    weights = reweight_prompts(prompts_of(world.model, SETS["imagenet-a"][0]), voters.images, RULE, labels=labels)
    assert world.value("ImageNet-A", "accuracy, BPRW, few-shot") == share(pictures, weights.as_classifier())
    assert world.figure("ImageNet-A", "accuracy, BPRW, few-shot")["num_items"] == 10


def test_what_is_left_out_is_said(world: World) -> None:
    ours, theirs = ("\n".join(world.results["notes"][name]) for name in world.names)
    assert "ImageNet-Sketch: wds_imagenet_sketch_test is not in" in ours
    assert "ImageNet-R: few-shot re-weighting: 'a nature' is not exactly one class of ImageNet" in ours
    assert "ImageNet-V2: few-shot" not in ours
    assert "filters and re-weighting of prompts, accuracy with class variances: the model has no variances" in theirs
    assert world.value("ImageNet", "accuracy, even prompts", model=1) >= 0
    assert {row["task"] for row in world.results["figures"] if row["main"]} == {
        "ImageNet",
        "ImageNet-V2",
        "ImageNet-A",
        "ImageNet-R",
    }


def test_without_a_model_or_data_nothing_runs(tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "imagenet", "--data", str(world.data)]) == 2
    assert "checkpoint is (): name at least one model" in capsys.readouterr().err
    words = ["--checkpoint", world.names[0], "--data", str(tmp_path), "--sets", "imagenet1k"]
    assert main(["eval", "imagenet", *words, "--out", str(tmp_path / "out")]) == 2
    assert f"wds_imagenet1k_test is not in {tmp_path}" in capsys.readouterr().err


def test_clips_own_templates_can_be_taken(tmp_path: Path, world: World) -> None:
    words = ["--checkpoint", world.names[1], "--data", str(world.data), "--sets", "imagenet-a", "--out", str(tmp_path)]
    assert main(["eval", "imagenet", *words, "--templates", "simple"]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["figures"][0]["num_items"] == 10


def test_sets_and_voters_of_any_name(tmp_path: Path, world: World) -> None:
    (tmp_path / "data").mkdir()
    for name, own in (("imagenet1k", "mine-trained"), ("imagenet-a", "mine-rest")):
        (tmp_path / "data" / f"wds_{own}_test").symlink_to(world.data / f"wds_{name}_test")
    words = ["--checkpoint", world.names[0], "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    words += ["--few_shot.num_draws", "3", "--few_shot.num_neighbors", "2", "--nearest.num_neighbors", "4"]
    words += ["--sets", "mine-rest", "mine-trained", "--voters", "mine-trained", "--num_resamples", "0"]
    assert main(["eval", "imagenet", *words]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["figures"]
    names = {"mine-rest": "ImageNet-A", "mine-trained": "ImageNet"}
    values = {(names[row["task"]], row["metric"]): row["value"][world.names[0]] for row in found}
    assert values == {(task, metric): world.value(task, metric) for task, metric in values}
    assert ("ImageNet-A", "accuracy, BPRW, few-shot") in values
    own = "accuracy, even prompts, without the few shots"
    assert ("ImageNet", own) in values
    assert ("ImageNet-A", own) not in values
    assert main(["eval", "imagenet", *words, "--voters", "mine-rest"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["figures"]
    assert {row["task"] for row in found if row["metric"] == own} == {"mine-rest"}, "other voters, other results"
