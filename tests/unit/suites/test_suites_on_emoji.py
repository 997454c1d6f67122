"""Every suite on the emoji set by its plain command, against figures computed from the shards."""

from __future__ import annotations

import html
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.support.emoji_build import build_some, skip_without_real_art
from tests.support.untrained_run import write_run_with
from torch import Tensor

from prolip.cli import main
from prolip.data.samples import read_record
from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.eval.bprw import labelled_images, reweight_prompts
from prolip.eval.hierarchy import mean_root, string_ids
from prolip.eval.measures import measure_hierarchy, measure_retrieval
from prolip.eval.uncertainty import area_under_risk_coverage
from prolip.eval.zero_shot import zero_shot_logits
from prolip.gaussian import Gaussian
from prolip.pretrained.open import load
from prolip.suites.config import FEW_SHOT

Record = dict[str, Any]
DESIGNS = {"openmoji": "OpenMoji", "goog": "Google", "twtr": "Twitter"}
TEMPLATES = ["{}", "a picture of {}", "an emoji of {}", "a picture: {}", "{}, emoji"]
LEVELS = ("picture", "group", "subgroup", "name")


class World:
    """Some emoji, the suites' data made of them, and a small model that was not trained."""

    def __init__(self, root: Path) -> None:
        self.root, self.emoji, self.suites = root, root / "emoji", root / "suites"
        build_some(self.emoji, 8)
        self.run, self.other = str(root / "run"), str(root / "other")
        for seed, folder in enumerate((self.run, self.other)):
            write_run_with(Path(folder), self.emoji / "tokenizer.json", 20, seed)
        assert main(["data", "build", "suites", "--data", str(self.emoji), "--out", str(self.suites)]) == 0
        self.model = load(self.run, device="cpu")

    def eval(self, suite: str, *words: str) -> dict[tuple[str, str], dict[str, Any]]:
        """The figures of a suite by task and metric; its three files are there."""
        out = self.root / "out" / suite
        given = ["--checkpoint", self.run, "--checkpoint", self.other, "--out", str(out), "--num_resamples", "50"]
        assert main(["eval", suite, *given, *words]) == 0
        found = json.loads((out / "results.json").read_text())
        for file in ("results.md", "results.html"):
            text = html.unescape((out / file).read_text())
            assert all(figure["metric"] in text for figure in found["figures"] if figure["main"])
        return {(figure["task"], figure["metric"]): figure for figure in found["figures"]}

    def values(self, suite: str, *words: str) -> dict[tuple[str, str], float]:
        """Those of the first model."""
        return {key: figure["value"][self.run] for key, figure in self.eval(suite, *words).items()}

    def embedded_images(self, name: str) -> tuple[Gaussian, list[Record]]:
        """Embedded images of a set of the emoji shards, and their json."""
        shards = [str(path) for path in sorted(self.emoji.glob(f"{name}-*.tar"))]
        found = embed_shards(self.model, shards, keep=("json",))
        records = [
            {"key": key, **read_record(key, member)}
            for key, member in zip(found.keys, found.members["json"], strict=True)
        ]
        return found.gaussian, records

    def prompts(self, classes: list[str]) -> Gaussian:
        """[C, K, D]"""
        flat = embed_captions(self.model, [template.format(name) for name in classes for template in TEMPLATES])
        return Gaussian(*(side.view(len(classes), len(TEMPLATES), -1) for side in flat))

    def classes(self, level: str) -> list[str]:
        """All that occur, in order."""
        names = ["design-twtr", *(f"test-{design}" for design in DESIGNS)]
        return list(dict.fromkeys(one[f"{level}_text"] for name in names for one in self.embedded_images(name)[1]))

    def hits(self, name: str, level: str) -> tuple[Tensor, Tensor, list[Record]]:
        """Whether even prompts put each image into its class, f64 [N]; its class; its json."""
        images, records = self.embedded_images(name)
        classes = self.classes(level)
        labels = torch.tensor([classes.index(one[f"{level}_text"]) for one in records])
        weight = F.normalize(self.prompts(classes).mean.mean(dim=1), dim=-1)
        return ((images.mean @ weight.T).argmax(dim=1) == labels).double(), labels, records


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    skip_without_real_art()
    return World(tmp_path_factory.mktemp("emoji"))


def mean_of_groups(hits: Tensor, groups: list[Any]) -> list[float]:
    return [float(hits[[one == group for one in groups]].mean()) for group in dict.fromkeys(groups)]


def datacomp(world: World) -> list[str]:
    return ["--data", str(world.suites), "--table", str(world.suites / "emoji-tasks.tsv")]


def test_the_datacomp_suite_gives_directly_computed_figures(world: World) -> None:
    figures = world.eval("datacomp", *datacomp(world))
    values = {key: figure["value"][world.run] for key, figure in figures.items()}
    mains: dict[str, list[float]] = {}
    for design, title in DESIGNS.items():
        hits, _, records = world.hits(f"test-{design}", "group")
        assert values[f"Groups, {title}", "accuracy"] == float(hits.mean())
        assert figures[f"Groups, {title}", "accuracy"]["num_items"] == len(records)
        hits, labels, records = world.hits(f"test-{design}", "subgroup")
        recall = sum(found := mean_of_groups(hits, labels.tolist())) / len(found)
        assert values[f"Subgroups, {title}", "mean per-class recall"] == pytest.approx(recall)
        groups = world.classes("group")
        with tarfile.open(world.suites / f"wds_emoji-subgroups-{design}_test" / "test" / "0.tar") as shard:
            places = [np.load(io.BytesIO(shard.extractfile(f"{one['key']}.npy").read())) for one in records]  # type: ignore[union-attr]
        assert [groups[place[0]] for place in places] == [one["group_text"] for one in records]
        worst = min(mean_of_groups(hits, [one["group"] for one in records]))
        assert values[f"Subgroups by group, {title}", "worst-group accuracy"] == worst
        images, texts, owners = captioned(world, design)
        expected = measure_retrieval(images, texts, owners)
        both = [expected[f"{way}_mean_recall_at_1"] for way in ("image_to_text", "text_to_image")]
        assert values[f"Names, {title}", "mean recall@1"] == pytest.approx(sum(both) / 2)
        for kind, metric in MAINS.items():
            mains.setdefault(kind, []).append(values[f"{kind}, {title}", metric])
    averages = {metric: value for (task, metric), value in values.items() if task == "Average"}
    assert averages == pytest.approx(
        {
            "groups": sum(mains["Groups"]) / 3,
            "subgroups": sum(mains["Subgroups"]) / 3,
            "worst-group": sum(mains["Subgroups by group"]) / 3,
            "names": sum(mains["Names"]) / 3,
            "12 tasks": sum(map(sum, mains.values())) / 12,
        }
    )
    assert {figure["task"] for figure in figures.values() if figure["main"]} == {
        "Average",
        *(f"{kind}, {title}" for kind in MAINS for title in DESIGNS.values()),
    }


MAINS = {
    "Groups": "accuracy",
    "Subgroups": "mean per-class recall",
    "Subgroups by group": "worst-group accuracy",
    "Names": "mean recall@1",
}


def captioned(world: World, design: str) -> tuple[Gaussian, Gaussian, Tensor]:
    """Distinct images of a design, all names, and the image of each."""
    images, records = world.embedded_images(f"test-{design}")
    distinct = list(dict.fromkeys(one["picture"] for one in records))
    rows = [next(row for row, one in enumerate(records) if one["picture"] == image) for image in distinct]
    pairs = sorted((distinct.index(one["picture"]), row) for row, one in enumerate(records))
    texts = embed_captions(world.model, [records[row]["name"] for _, row in pairs])
    return images.rows(torch.tensor(rows)), texts, torch.tensor([image for image, _ in pairs])


def test_a_second_run_of_the_suite_embeds_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.eval("datacomp", *datacomp(world))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a task ran again")

    for home in ("classification", "datacomp"):
        monkeypatch.setattr(f"prolip.suites.{home}.embed_shards", fail)
    assert world.eval("datacomp", *datacomp(world)) == before


def test_the_emoji_suite_has_the_same_group_accuracy(world: World) -> None:
    """And its rows have intervals, and differences between models drawn from the same items."""
    figures = world.eval("emoji", "--data", str(world.emoji))
    group = figures["Group of a held-out emoji, zero-shot", "trained"]
    own = world.eval("datacomp", *datacomp(world))["Groups, OpenMoji", "accuracy"]
    for name in (world.run, world.other):
        assert group["value"][name] == pytest.approx(own["value"][name], abs=1e-12)
        assert group["low"][name] <= group["value"][name] <= group["high"][name]
    assert group["num_items"] == own["num_items"]
    assert group["difference_low"][world.other] <= group["difference"][world.other]
    for part in ("trained", "random"):
        results = json.loads((Path(world.run) / "eval.json").read_text())
        shown = [figure for figure in figures.values() if figure["metric"] == part.replace("random", "untrained")]
        assert [figure["value"][world.run] for figure in shown] == [one[part] for one in results["headlines"]]


def test_the_imagenet_suite_gives_directly_computed_figures(world: World) -> None:
    sets = [f"emoji-groups-{design}" for design in DESIGNS]
    words = ["--data", str(world.suites), "--sets", *sets, "--voters", "emoji-groups-trained"]
    values = world.values("imagenet", *words)
    classes = world.classes("group")
    voters, records = world.embedded_images("design-twtr")
    labels = torch.tensor([classes.index(one["group_text"]) for one in records])
    assert int((labelled_images(labels, len(classes), FEW_SHOT.num_neighbors) >= 0).sum()) > 2 * len(classes)
    weights = reweight_prompts(world.prompts(classes), voters, FEW_SHOT, labels=labels).as_classifier()
    for design in DESIGNS:
        task = f"emoji-groups-{design}"
        hits, own, _ = world.hits(f"test-{design}", "group")
        assert values[task, "accuracy, even prompts"] == float(hits.mean())
        images, _ = world.embedded_images(f"test-{design}")
        right = (zero_shot_logits(images.mean, weights.weight, logit_scale=1.0).argmax(dim=1) == own).double()
        assert values[task, "accuracy, BPRW, few-shot"] == float(right.mean())
        assert (task, "accuracy, BPRW, nearest, with class variances") in values


def test_the_retrieval_suite_gives_directly_computed_figures(world: World) -> None:
    names = [f"wds_emoji-names-{design}_test" for design in ("openmoji", "twtr")]
    words = [word for name in names for word in ("--data", str(world.suites / name))]
    figures = world.eval("retrieval", *words)
    for name, design in zip(names, ("openmoji", "twtr"), strict=True):
        images, texts, owners = captioned(world, design)
        expected = measure_retrieval(images, texts, owners)
        figure = figures[name, "caption to image R@5, by sampled distance"]
        assert figure["value"][world.run] == pytest.approx(expected["text_to_image_csd_recall_at_5"])
        assert figure["num_items"] == len(texts.mean)
        assert figures[name, "mean recall@1"]["main"]


def hierarchy(world: World) -> tuple[Gaussian, list[Record]]:
    """The distinct held-out emoji of the first design."""
    images, records = world.embedded_images("test-openmoji")
    rows = [row for row, one in enumerate(records) if one["picture"] not in {r["picture"] for r in records[:row]}]
    return images.rows(torch.tensor(rows)), [records[row] for row in rows]


def levels(flat: Gaussian, count: int) -> Gaussian:
    return Gaussian(*(side.view(count, 4, -1) for side in flat))


def test_the_hierarcaps_suite_gives_directly_computed_figures(world: World) -> None:
    values = world.values("hierarcaps", "--data", str(world.suites / "hierarcaps"))
    images, records = hierarchy(world)
    texts = [[one["captions"][level][0] for level in LEVELS] for one in records]
    items = levels(embed_captions(world.model, [text for some in texts for text in some]), len(texts))
    root = embed_captions(world.model, [""]).mean[0]
    expected = measure_hierarchy(images, items, string_ids(texts), root, num_resamples=1)
    for figure in ("precision", "recall"):
        assert values["HierarCaps", f"{figure}, to the root"] == pytest.approx(expected[f"text_{figure}"])
    assert values["HierarCaps", "lies in its level 1 (0 is the most general)"] == pytest.approx(expected["include_1"])
    assert values["HierarCaps", "uncertainty falls at every level"] == pytest.approx(expected["level_share_ordered"])


def test_the_hierarimgs_suite_gives_directly_computed_figures(world: World) -> None:
    figures = world.eval("hierarimgs", "--data", str(world.suites / "hierarimgs"))
    (shard,) = (world.root / "out" / "hierarimgs" / "data").glob("*.tar")
    found = embed_shards(world.model, [str(shard)])
    lines = (world.suites / "hierarimgs" / "hierarimgs.csv").read_text(encoding="utf-8").splitlines()[1:]
    names = [line.rpartition(",")[2].split(" => ") for line in lines]
    distinct = list(dict.fromkeys(name for some in names for name in some))
    assert len(distinct) == len(found.keys)
    own = {name: place for place, name in enumerate(distinct)}
    flat = found.gaussian.rows(torch.tensor([own[name] for some in names for name in some]))
    by_name = {one["key"]: one["name"] for one in hierarchy(world)[1]}
    captions = embed_captions(world.model, [by_name[some[3].removesuffix(".png")] for some in names])
    items = levels(flat, len(names))
    expected = measure_hierarchy(captions, items, string_ids(names), mean_root(items), num_resamples=1)
    figure = figures["HierarImgs", "precision, to the root"]
    assert figure["value"][world.run] == pytest.approx(expected["text_precision"])
    assert figure["num_items"] == len(names) > 20


def test_the_uncertainty_suite_gives_directly_computed_figures(world: World) -> None:
    name = "wds_emoji-groups-twtr_test"
    values = world.values("uncertainty", "--data", str(world.suites / name), "--caption_key", "txt")
    images, records = world.embedded_images("test-twtr")
    hits, _, _ = world.hits("test-twtr", "group")
    assert values[name, "accuracy"] == float(hits.mean())
    area = area_under_risk_coverage(images.total_var.double(), hits)
    assert values[name, "area under risk and coverage"] == pytest.approx(area)
    texts = embed_captions(world.model, [one["name"] for one in records])
    assert values[name, "mean uncertainty of captions"] == pytest.approx(float(texts.total_var.double().mean()))
    assert 0 <= values[name, "an image is more uncertain blurred"] <= 1
