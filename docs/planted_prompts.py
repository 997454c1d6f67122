"""Plant vague and wrong prompts among good ones, and see when re-weighting helps (docs/planted-prompts.md).

    python docs/planted_prompts.py --checkpoint runs/demo

Every class keeps its good prompts. All ways to build a classifier are scored on the same held-out emoji.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import tyro
from studies import embed_test, print_table
from torch import Tensor

import prolip
from prolip.demo.samples import Captions
from prolip.gaussian import Gaussian
from prolip.inference import Model
from prolip.metrics.bprw import labelled_images, reweight_prompts
from prolip.metrics.config import BprwConfig
from prolip.metrics.prompts import filter_prompts, kept_prompts, within_spread
from prolip.metrics.statistics import bootstrap, mean
from prolip.metrics.zero_shot import aggregate_prompts

KINDS = ("vague", "wrong", "one wrong class")
"""Planted prompts: "an emoji of something"; prompts of random other classes; of one other class, which agree."""
COUNTS = (0, 2, 5, 15)
"""Planted prompts per class."""
NEAREST = BprwConfig()
"""The published settings without labels."""
FEW_SHOT = BprwConfig(alpha=2, num_neighbors=5, num_draws=20)
"""The published settings with labelled images."""


def plant(kind: str, count: int, good: Sequence[Sequence[str]], vague: Sequence[str], seed: int) -> list[list[str]]:
    """`count` planted prompts for each class; where a class has fewer of the kind, they repeat."""
    draws = torch.Generator().manual_seed(seed)
    planted = []
    for place in range(len(good)):
        others = [other for other in range(len(good)) if other != place]
        order = [others[draw] for draw in torch.randperm(len(others), generator=draws).tolist()]
        if kind == "vague":
            pool = [vague[draw] for draw in torch.randperm(len(vague), generator=draws).tolist()]
        elif kind == "wrong":
            templates = torch.randint(len(good[0]), (len(order),), generator=draws).tolist()
            pool = [good[other][template] for other, template in zip(order, templates, strict=True)]
        else:
            pool = list(good[order[0]])
        planted.append([pool[draw % len(pool)] for draw in range(count)])
    return planted


def classifiers(
    prompts: Gaussian, images: Gaussian, labels: Tensor | None, num_voters: int
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the name of each way, its classifier [C, D] and its prompt weights [C, K].

    Args:
        prompts: [C, K, D].
        images: [N, D].
        labels: i64 [N], the labelled images of the few-shot setting, -1 for the others; None to leave it out.
        num_voters: nearest images that vote.
    """
    classes, num_prompts, _ = prompts.mean.shape
    even = torch.full((classes, num_prompts), 1 / num_prompts)
    yield "even weights", aggregate_prompts(prompts).weight, even
    limit = within_spread(prompts.uncertainty)
    kept = kept_prompts(prompts.uncertainty, limit).double()
    yield "up to the mean uncertainty", filter_prompts(prompts, limit).weight, kept / kept.sum(1, keepdim=True)
    settings: dict[str, tuple[BprwConfig, Tensor | None]] = {
        "BPRW, nearest images": (replace(NEAREST, num_neighbors=num_voters), None),
    }
    if labels is not None:
        settings["BPRW, labelled images"] = (FEW_SHOT, labels)
    for name, (config, known) in settings.items():
        found = reweight_prompts(prompts, images, config, labels=known)
        yield name, found.classifier, found.weights


class Setting(NamedTuple):
    """One level of classes on one design of held-out emoji."""

    title: str
    images: Gaussian
    """[N, D]"""
    labels: Tensor
    """i64 [N]"""
    shots: Tensor | None
    """i64 [N], the labels of the images that vote in the few-shot setting, -1 for the others; None without it."""
    scored: Tensor
    """bool [N], the images that do not vote there. All ways are scored on these."""
    num_voters: int
    """Nearest images that vote without labels."""
    good: list[list[str]]
    """[C][G]"""
    vague: list[str]
    captions: Captions


def held_out_settings(model: Model, data: Path) -> Iterator[Setting]:
    """Groups and subgroups, on a design that the model was trained on and on one that it never saw."""
    found = embed_test(model, data)
    for classes in found.classes:
        level, good = classes.level, list(classes.prompts.values())
        for chosen in (found.sets[0], found.sets[2]):
            labels, shots = classes.labels(chosen.samples), None
            scored = torch.ones(len(labels), dtype=torch.bool)
            if level == "group":  # most subgroups have too few images for a few-shot setting
                voters = labelled_images(labels, len(good), FEW_SHOT.num_neighbors)
                scored[voters[voters >= 0]] = False
                shots = torch.where(scored, -1, labels)
            yield Setting(
                title=f"{chosen.name}, {len(good)} {level}s: {int(scored.sum())} images, {len(good[0])} good prompts",
                images=chosen.images,
                labels=labels,
                shots=shots,
                scored=scored,
                num_voters=NEAREST.num_neighbors if level == "group" else 3,
                good=good,
                vague=sorted(set(chosen.samples[0].captions["picture"])),
                captions=found.captions,
            )


def score(setting: Setting, kind: str, count: int, draws: int) -> dict[str, tuple[Tensor, float]]:
    """Of every way: the share of draws in which each image is right, [N scored], and the planted prompts' weight."""
    good = setting.good
    right: dict[str, list[Tensor]] = {}
    planted_weight: dict[str, list[float]] = {}
    for seed in range(draws if count else 1):
        texts = [mine + bad for mine, bad in zip(good, plant(kind, count, good, setting.vague, seed), strict=True)]
        flat = setting.captions.of([text for ensemble in texts for text in ensemble])
        prompts = Gaussian(*(part.reshape(len(good), len(texts[0]), -1) for part in flat))
        ways = classifiers(prompts, setting.images, setting.shots, setting.num_voters)
        for name, classifier, weights in ways:
            answers = (setting.images.mean @ classifier.to(setting.images.mean).T).argmax(1)
            right.setdefault(name, []).append((answers == setting.labels)[setting.scored].double())
            planted_weight.setdefault(name, []).append(float(weights[:, len(good[0]) :].sum(1).mean()))
    return {name: (torch.stack(each).mean(0), sum(planted_weight[name]) / len(each)) for name, each in right.items()}


def cell(right: Tensor, planted_weight: float, even: Tensor) -> str:
    """Accuracy, or its difference from even weights with an interval, and the planted prompts' weight, in percent."""
    if right is even:
        return f"{100 * float(right.mean()):.1f}"
    weight = f"[{100 * planted_weight:.0f}]"
    if right.equal(even):
        return f"0 {weight}"
    gain = bootstrap(mean, 100 * (right - even), seed=0)
    return f"{gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f}) {weight}"


def main(checkpoint: str = "runs/demo", data: Path = Path("data/emoji"), draws: int = 10) -> None:
    """Print the tables of docs/planted-prompts.md.

    Args:
        checkpoint: A run trained on the emoji.
        data: What `prolip data build emoji` wrote.
        draws: Times that planted prompts are drawn.
    """
    model = prolip.load(checkpoint, device="cpu", beside=data)
    for setting in held_out_settings(model, data):
        rows = []
        for kind in KINDS:
            for count in COUNTS if kind == KINDS[0] else COUNTS[1:]:
                ways = score(setting, kind, count, draws)
                even, _ = ways["even weights"]
                rows.append([f"{count} {kind}" if count else "none", *(cell(*way, even) for way in ways.values())])
        print_table([f"{setting.title}: planted", *ways], rows)


if __name__ == "__main__":
    tyro.cli(main, use_underscores=True)
