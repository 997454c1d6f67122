"""Count how often guarantees are kept, over random splits of held-out emoji (docs/uncertainty.md).

    python docs/guarantees.py --checkpoint runs/demo

One half of the images calibrates as `prolip calibrate` does, and decisions about the other half are those of
`model.classify`. N images, C labels, A scores of label sets, G guarantees, L limits of errors, S splits.
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
from prolip.calibration import Calibration, Evidence, Subject, fit_calibration
from prolip.calibration.calibration import score_labels
from prolip.calibration.config import Score
from prolip.evaluation.decisions import SCORES
from prolip.inference import Model
from prolip.inference.classify import weigh

GUARANTEES = (0.8, 0.9, 0.95)
LIMITS = (0.1, 0.2, 0.3)
IMAGES = "images: fitted + giving thresholds + tested"


class Split(NamedTuple):
    """A calibration on one half of the images. Evidence, with its prior, and labels, i64, of all images that fitted
    nothing: first those that gave the thresholds, then the tested half, whose place is `tested`."""

    calibration: Calibration
    evidence: Evidence
    truth: Tensor
    tested: slice


def split(evidence: Evidence, truth: Tensor, seed: int) -> Split:
    """Calibrate on a random half of the images."""
    # Nothing here reads pairs or means, and to fit both takes most of the time.
    evidence = evidence._replace(pair_logits=None, means=evidence.means[:, :1])
    order, half = torch.randperm(len(truth), generator=torch.Generator().manual_seed(seed)), len(truth) // 2
    subject = Subject("", "", "half of the images", [str(label) for label in range(evidence.logits.shape[1])], [])
    found, held = fit_calibration(evidence.rows(order[:half]), truth[order[:half]], subject, seed=seed)
    unseen = torch.cat([order[held], order[half:]])
    return Split(found, found.with_prior(evidence.rows(unseen)), truth[unseen], slice(len(held), None))


def label_sets(one: Split, score: Score, guarantee: float, *, per_label: bool = False) -> tuple[Tensor, Tensor]:
    """Whether the set of each tested image contains its label, bool [N]; and the labels in each set, i64 [N]."""
    scores = score_labels(one.evidence, score, one.calibration.temperature).gather(1, one.truth[:, None])
    held = one.calibration.held._replace(score=scores[: one.tested.start, 0])
    calibration = replace(one.calibration, score=score, held=held)
    sets = calibration.label_sets(one.evidence.rows(one.tested), guarantee, per_label=per_label)
    return sets.gather(1, one.truth[one.tested, None])[:, 0], sets.sum(dim=1)


def count_sets(one: Split) -> Tensor:
    """Share of label sets that contain the label, and mean number of labels in a set, f64 [A, G, 2]."""
    counted = [label_sets(one, score, guarantee) for score in SCORES for guarantee in GUARANTEES]
    means = [torch.stack([part.double().mean() for part in some]) for some in counted]
    return torch.stack(means).reshape(len(SCORES), len(GUARANTEES), 2)


def count_labels(one: Split) -> Tensor:
    """Labels with a threshold of their own, f64 [G, C, 4], 0 for others: 1; tested images; how many of their sets by
    `lac` contain the label, by the threshold of all images and by its own."""
    truth, num_labels = one.truth[one.tested], len(one.calibration.labels)
    found = []
    for guarantee in GUARANTEES:
        own = [[basis == "class"] for basis in one.calibration.class_thresholds(guarantee).basis]
        covered = [label_sets(one, "lac", guarantee, per_label=each)[0] for each in (False, True)]
        counts = [torch.bincount(truth[some], minlength=num_labels) for some in (truth >= 0, *covered)]
        found.append(torch.stack([torch.ones(num_labels), *counts], dim=1) * torch.tensor(own))
    return torch.stack(found).double()


def count_limits(one: Split) -> Tensor:
    """Answers within a limit of errors, f64 [L, 4]: share of the tested images that is answered; wrong among these, NaN
    if there is none; whether that is above the limit; whether it is among all images that fitted nothing."""
    confidence = one.calibration.confidence(one.evidence)
    wrong, found = (one.evidence.logits.argmax(dim=1) != one.truth).double(), []
    for limit in LIMITS:
        given = confidence >= one.calibration.abstention(limit).threshold
        errors = wrong[one.tested][given[one.tested]].mean()
        found.append([given[one.tested].double().mean(), errors, errors > limit, wrong[given].mean() > limit])
    return torch.tensor(found, dtype=torch.float64)


def held_out_settings(model: Model, data: Path) -> Iterator[tuple[str, Evidence, Tensor]]:
    """Yield groups and subgroups on every design: a title, the evidence on N images, and their labels, i64 [N]."""
    found = embed_test(model, data)
    for classes in found.classes:
        for chosen in found.held_out:
            evidence = weigh(chosen.images, classes.embedded(found.captions), None, model.similarity)
            title = f"{classes.level}s, {chosen.name.removeprefix('test-')}"
            yield title, evidence, classes.labels(chosen.samples)


def percent(mean: Tensor) -> str:
    """In percent, "–" for NaN."""
    return "–" if mean.isnan() else f"{100 * mean:.1f}"


def set_cells(counts: Tensor) -> Iterator[str]:
    """Cells of a score, from [S, G, 2]: mean and standard deviation over the splits, and mean size."""
    for contain, size in counts.permute(1, 2, 0):
        yield from (f"{percent(contain.mean())} ± {percent(contain.std())}", f"{size.mean():.2f}")


def label_cells(counts: Tensor) -> Iterator[str]:
    """Cells from [S, G, C, 4], about labels that have a threshold of their own in at least half of the splits."""
    for times, tested, *contain in counts.sum(dim=0).permute(0, 2, 1):
        often = times >= len(counts) / 2
        yield str(int(often.sum()))
        for shares in ((some / tested)[often] for some in contain):
            yield f"{percent(shares.min())} to {percent(shares.max())}" if len(shares) else "–"


def heads(shares: Sequence[float], *columns: str) -> list[str]:
    """Heads of the columns, which repeat for every guarantee or limit."""
    return [f"{share:.0%}: {column}" for share in shares for column in columns]


def main(checkpoint: str = "runs/demo", data: Path = Path("data/emoji"), splits: int = 1000) -> None:
    """Count how often guarantees are kept (docs/uncertainty.md).

    Args:
        checkpoint: A run trained on the emoji.
        data: What `prolip data build emoji` wrote.
        splits: Random splits of the images.
    """
    model = prolip.load(checkpoint, device="cpu", beside=data)
    sets, labels, limits = [], [], []
    for title, evidence, truth in held_out_settings(model, data):
        drawn = [split(evidence, truth, seed) for seed in range(splits)]
        num_held = drawn[0].tested.start
        name = f"{title}: {len(truth) // 2 - num_held} + {num_held} + {len(truth) - len(truth) // 2}"
        by_score = torch.stack([count_sets(one) for one in drawn], dim=1)
        sets += [[name, f"`{score}`", *set_cells(some)] for score, some in zip(SCORES, by_score, strict=True)]
        if title.startswith("groups"):  # most subgroups have too few images for a threshold of their own
            labels.append([name, *label_cells(torch.stack([count_labels(one) for one in drawn]))])
        means = torch.stack([count_limits(one) for one in drawn]).nanmean(dim=0)
        limits.append([name, *map(percent, means.flatten())])
    print_table([IMAGES, "score", *heads(GUARANTEES, "contain the label", "labels")], sets)
    print_table([IMAGES, *heads(GUARANTEES, "groups", "one threshold", "their own")], labels)
    print_table([IMAGES, *heads(LIMITS, "answered", "wrong", "broken", "broken by all unfitted")], limits)


if __name__ == "__main__":
    tyro.cli(main, use_underscores=True)
