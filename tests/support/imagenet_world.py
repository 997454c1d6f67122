"""ImageNet and two of its variants in small, evaluated once for two models."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tests.support.datacomp_sets import encoded_image, write_lists, write_open_clip, write_shards
from tests.support.untrained_run import write_run
from torch import Tensor

from prolip.cli import main
from prolip.embeddings.embed import embed_shards
from prolip.evaluation.imagenet import LabelledSet
from prolip.evaluation.results import RowId
from prolip.gaussian import Gaussian
from prolip.inference.load_model import load
from prolip.inference.model import Model
from prolip.metrics.config import BprwConfig
from prolip.metrics.zero_shot import Classifier, zero_shot_logits

CLASSES = ["animals", "nature", "food", "travel"]


TEMPLATES = ["a picture of {c}", "an emoji: {c}", "{c} and travel", "{c}"]


SETS = {
    "imagenet1k": (CLASSES, 6),
    "imagenetv2": (CLASSES, 3),
    "imagenet-a": (["travel", "nature"], 5),
    "imagenet-r": (["food", "a nature"], 5),
}
"""Class names and images a class."""


RULE = BprwConfig(alpha=2.0, num_neighbors=2, num_draws=3)


def write_set(root: Path, name: str) -> None:
    draw = random.Random(name)
    classnames, each = SETS[name]
    folder = root / f"wds_{name}_test"
    write_lists(folder, classnames, TEMPLATES)
    samples = [
        [(f"s{number:07}.png", encoded_image(draw)), (f"s{number:07}.cls", str(number % len(classnames)).encode())]
        for number in range(each * len(classnames))
    ]
    write_shards(folder / "test", samples)


class ImagenetWorld:
    def __init__(self, root: Path) -> None:
        self.data, self.out = root / "data", root / "out"
        for name in SETS:
            write_set(self.data, name)
        run = root / "run"
        write_run(run, root / "tokenizer.json", context_length=6)
        self.names = [str(run), write_open_clip(root / "clip")]
        words = [word for name in self.names for word in ("--checkpoint", name)]
        words += f"--data {self.data} --out {self.out} --num_resamples 20 --few_shot.num_draws".split()
        words += ["3", "--few_shot.num_neighbors", "2", "--nearest.num_neighbors", "4"]
        assert main(["eval", "imagenet", *words]) == 0
        self.results = json.loads((self.out / "results.json").read_text())
        self.model = load(str(run), device="cpu")

    def figure(self, task: str, measure: str, **of: Any) -> dict[str, Any]:
        (found,) = (row for row in self.results["figures"] if RowId(**row["id"]) == RowId(measure, data=task, **of))
        assert isinstance(found, dict)
        return found

    def value(self, task: str, measure: str, model: int = 0, **of: Any) -> float:
        value = self.figure(task, measure, **of)["value"][self.names[model]]
        assert isinstance(value, float)
        return value


def prompts_of(model: Model, classnames: list[str]) -> Gaussian:
    rows = [model.encoder.embed_captions([template.format(c=name) for template in TEMPLATES]) for name in classnames]
    return Gaussian(torch.stack([row.mean for row in rows]), torch.stack([row.log_var for row in rows]))


def labelled_set(world: ImagenetWorld, name: str, model: Model | None = None) -> LabelledSet:
    shards = [str(world.data / f"wds_{name}_test" / "test" / f"{number}.tar") for number in range(2)]
    images = embed_shards(model or world.model, shards).gaussian
    return LabelledSet(images, torch.arange(len(images.mean)) % len(SETS[name][0]), SETS[name][0])


def share(
    labelled: LabelledSet, classifier: Classifier, *, with_var: bool = False, rows: Tensor | None = None
) -> float:
    var = classifier.total_var if with_var else None
    right = (
        zero_shot_logits(labelled.images.mean, classifier.weight, var, logit_scale=1.0).argmax(dim=1) == labelled.labels
    )
    return float((right if rows is None else right[rows]).double().mean())
