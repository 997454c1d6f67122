"""Measure variances on vectors of real CLIPs, for docs/real-clips.md: python docs/real_clips.py FOLDER

The folder holds .npz files that other people published (the page names them): coco500_vitb16, fashion1126 and
myntra1000_marqo (`images`, `texts`), imagenet_vitb32, caltech101_vitb32, flowers102_vitb32, class_text_vitb32_detic and
whurs19/*. Every split draws half of the queries as a bank without labels. The other half is tested, in a collection
without the bank's own items. Figures are means of ten splits; intervals are of a paired bootstrap over queries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.adapt.config import AdaptOptions, CountedConfig, HeadsConfig
from prolip.adapt.counted import counted_head
from prolip.adapt.heads import fit_heads, start_heads
from prolip.adapt.logits import fit_logits
from prolip.adapt.pairs import BLOCK, PairRows, Pairs
from prolip.calibration.calibration import Subject
from prolip.calibration.search import DEPTH, KnownQueries, SearchCalibration
from prolip.embeddings.search import Hit, unlike_decoys
from prolip.metrics.statistics import auroc, value_of
from prolip.models.adapter import Adapter
from prolip.models.config import AdapterConfig

SCALE, SPLITS, RESAMPLES = 100.0, 10, 200
PAIRS = ("coco500_vitb16", "fashion1126", "myntra1000_marqo")


def unit(rows: np.ndarray) -> Tensor:
    """Rows of unit norm."""
    return F.normalize(torch.from_numpy(rows.astype(np.float32)), dim=-1)


def halves(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random halves of the queries: the bank's, and those that are tested."""
    for seed in range(SPLITS):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        yield order[: count // 2], order[count // 2 :]


@dataclass(frozen=True)
class InMemory(Pairs):
    """Pairs that are in no folder."""

    given: PairRows

    def blocks(self, order: Iterable[int] | None = None, rows: int = BLOCK) -> Iterator[PairRows]:
        """All pairs at once."""
        yield self.given


def heads(images: Tensor, texts: Tensor) -> Adapter:
    """Learned variances, from as many pairs as the bank has queries; they need labels, namely the pairs."""
    options = AdaptOptions(embeddings=("",), out=Path(), heads=HeadsConfig(batch_size=256, steps=500))
    given = PairRows(images, texts, None, None)
    pairs = InMemory((), (), len(images), images.shape[1], given)
    adapter = Adapter(AdapterConfig(embed_dim=pairs.dim, hidden=options.heads.hidden))
    start_heads(adapter, fit_logits([given]))
    fit_heads(adapter, pairs, options.heads, options.loss)
    return adapter


def measures(logits: Tensor, rows: Tensor) -> dict[str, float]:
    """Of queries `rows`, where query i's right item is item i, and what is left if that item is taken away."""
    right = torch.arange(len(logits))
    without = logits.clone()
    without[right, right] = -torch.inf
    best, first = logits.max(1)
    hit, absent = (first == right)[rows], without.max(1).values[rows]
    here, posterior = best[rows], (best - logits.logsumexp(1))[rows]
    present = torch.cat([torch.ones(len(rows)), torch.zeros(len(rows))]).bool()
    return {
        "R@1": float(hit.float().mean()),
        "present": value_of(auroc, torch.cat([here, absent]), present),
        "answered at 10 % wrong": float((here > absent.quantile(0.9)).float().mean()),
        "first is right, by its score": value_of(auroc, here, hit),
        "first is right, by the posterior": value_of(auroc, posterior, hit),
    }


def wrong_pairs(logits: Tensor, rows: Tensor) -> dict[str, float]:
    """AUROC of finding texts that were exchanged with others, by the pair's logit and by both posteriors."""
    texts = torch.arange(len(logits))
    swapped = torch.randperm(len(logits), generator=torch.Generator().manual_seed(9))[: len(logits) * 3 // 10]
    texts[swapped] = texts[swapped].roll(1)
    given = logits[texts]  # row i: the text that is now beside image i
    pair, right = given.diagonal(), texts == torch.arange(len(logits))
    both = 2 * pair - given.logsumexp(0) - given.logsumexp(1)
    return {
        "by its logit": value_of(auroc, pair[rows], right[rows]),
        "by both posteriors": value_of(auroc, both[rows], right[rows]),
    }


def accuracy(labels: Tensor, logits: Tensor, rows: Tensor) -> dict[str, float]:
    """Of images `rows`."""
    return {"accuracy": float((logits.argmax(1) == labels)[rows].float().mean())}


Measure = Callable[[Tensor, Tensor], dict[str, float]]


class Tally:
    """Means over splits of each measure by each method, and of the differences from the first method."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}
        self.differences: dict[str, dict[str, list[float]]] = {}

    def add(self, made: Mapping[str, Tensor], measure: Measure) -> None:
        """Measure a split's logits, and resamples of its queries."""
        generator, names = torch.Generator().manual_seed(0), [*made]
        count = len(made[names[0]])
        for number in range(1 + RESAMPLES // SPLITS):
            rows = torch.randint(count, (count,), generator=generator) if number else torch.arange(count)
            found = {name: measure(logits, rows) for name, logits in made.items()}
            for name, what in product(names, found[names[0]]):
                into = self.differences if number else self.values
                base = found[names[0]][what] if number else 0.0
                into.setdefault(name, {}).setdefault(what, []).append(found[name][what] - base)

    def show(self, title: str) -> None:
        """Write a table in Markdown: per cent, and intervals of the differences from the first row."""
        first = next(iter(self.values))
        lines = ["", title, "", f"| | {' | '.join(self.values[first])} |", f"|---|{'---|' * len(self.values[first])}"]
        for name, figures in self.values.items():
            cells = []
            for what, values in figures.items():
                low, high = np.quantile(self.differences[name][what], [0.025, 0.975])
                interval = "" if name == first else f" ({100 * low:+.1f} to {100 * high:+.1f})"
                cells.append(f"{100 * np.mean(values):.1f}{interval}")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        sys.stdout.write("\n".join(lines) + "\n")


def variance(queries: Tensor, items: Tensor, of: Tensor, **config: object) -> Tensor:
    """Total variances that are counted from queries, with items as the sample."""
    head, _ = counted_head(queries, items, SCALE, CountedConfig(**config))  # type: ignore[arg-type]
    return head.total_var(of)


def search(folder: Path, name: str) -> None:
    """Show what a data set of pairs says."""
    data = np.load(folder / f"{name}.npz")
    images, texts = unit(data["images"]), unit(data["texts"])
    there, exchanged = Tally(), Tally()
    for bank, test in halves(len(texts)):
        cosine = SCALE * texts[test] @ images[test].T
        image = variance(texts[bank], images[test], images[test])
        text = variance(images[test], texts[bank], texts[test])
        nearest = variance(texts[bank], images[:0], images[test])
        adapter = heads(images[bank], texts[bank])
        with torch.no_grad():
            learned = [head(rows[test]).total_var for head, rows in ((adapter.text, texts), (adapter.image, images))]
            scale = adapter.logit_scale.exp()
        made = {
            "cosine": cosine,
            "counted": cosine - SCALE / 2 * (image + text[:, None]),
            "counted, nearest": cosine - SCALE / 2 * nearest,
            "learned": scale * (cosine / SCALE - (learned[1] + learned[0][:, None]) / 2),
        }
        there.add(made, measures)
        exchanged.add({name: made[name] for name in ("cosine", "counted", "learned")}, wrong_pairs)
    there.show(f"{name}: text to image")
    exchanged.show(f"{name}: 3 of 10 texts exchanged")


def classify(name: str, images: Tensor, texts: Tensor, labels: Tensor, foreign: Tensor | None = None) -> None:
    """Show zero-shot accuracy; the bank is half of the images, or foreign ones."""
    tally = Tally()
    for bank, test in halves(len(labels)):
        queries, logits = images[bank] if foreign is None else foreign, SCALE * images[test] @ texts.T
        made = {
            "cosine": logits,
            "counted": logits - SCALE / 2 * variance(queries, texts, texts),
            "counted, whatever the bank": logits - SCALE / 2 * variance(queries, texts, texts, strength=1.0),
            "counted, nearest": logits - SCALE / 2 * variance(queries, texts[:0], texts),
        }
        tally.add(made, partial(accuracy, labels[test]))
    tally.show(name)


def restraint(
    title: str,
    images: Tensor,
    queries: Tensor,
    owner: Tensor,
    words: Tensor | None = None,
    foreign: Tensor | None = None,
) -> None:
    """Show what decoys promise; those with the smallest `words`, or foreign ones. `owner` [N] is each image's query."""
    found, length = [], torch.ones(len(queries), dtype=torch.long) if words is None else words
    for seed in range(200):
        there, gone = torch.randperm(len(queries), generator=torch.Generator().manual_seed(seed)).chunk(2)
        decoys, tested = gone[length[gone].argsort(stable=True)].chunk(2)
        rows = torch.arange(len(queries)) if foreign is None or len(foreign) == len(queries) else None
        given = (queries if foreign is None else foreign)[slice(None) if rows is None else decoys]
        kept = images[torch.isin(owner, there)]
        given, new, sure = (
            (some @ kept.T).topk(DEPTH).values.double() for some in (given, queries[tested], queries[there])
        )
        known = SearchCalibration(
            subject=Subject("", "", "", [], []),
            score="mean",
            num_images=len(kept),
            text=KnownQueries(given[:0, 0], given[:, 0], given[:0, 0]),
            image=KnownQueries(*torch.zeros(3, 0)),
            words=length[decoys].abs().tolist() if rows is not None else [1] * len(given),
            depth_scores=given[:, -1].tolist(),
        )
        some = tested[:: len(tested) // 50][:50]
        asked = torch.cat([new[:: len(tested) // 50][:50], sure[:50]])
        texts = ["a " * number for number in length[torch.cat([some, there[:50]])].abs().tolist()]
        hits = [[Hit(score, 0, 0) for score in row] for row in asked.tolist()]
        shown = [known.limits("text", len(kept), max_wrong=share).shown for share in (0.1, 0.2)]
        wrong = [float((new[:, 0] > limit).double().mean()) for limit in shown]
        warned = float(len(unlike_decoys(known, texts, hits, len(kept))) > 0)
        found.append([*wrong, float((sure[:, 0] > shown[0]).double().mean()), warned])
    (ten, twenty, answered, warned), spread = 100 * np.mean(found, 0), 100 * np.std(found, 0)
    line = f"{ten:.1f} ± {spread[0]:.1f} | {twenty:.1f} ± {spread[1]:.1f} | {answered:.1f} | {warned:.0f}"
    sys.stdout.write(f"| {title} | {line} |\n")


def decoys(folder: Path) -> None:
    """Show what all promise."""
    for name in PAIRS:
        data = np.load(folder / f"{name}.npz")
        images, texts = unit(data["images"]), unit(data["texts"])
        restraint(name, images, texts, torch.arange(len(texts)))
        if "captions" in data:
            words = torch.tensor([len(str(text).split()) for text in data["captions"]])
            restraint(f"{name}, shorter decoys", images, texts, torch.arange(len(texts)), words)
            restraint(f"{name}, longer decoys", images, texts, torch.arange(len(texts)), -words)
    data = np.load(folder / "imagenet_vitb32.npz")
    sets = unit(data["images_4shot"]), unit(data["text_b"]), torch.from_numpy(data["labels_4shot"])
    restraint("ImageNet", *sets)
    restraint("ImageNet, other prompt", *sets, foreign=unit(data["text_a"]))
    other = np.load(folder / "class_text_vitb32_detic.npz")
    for name in ("lvis", "oid"):
        restraint(f"ImageNet, {name}", *sets, foreign=unit(other[name]))


def main() -> None:
    """Measure everything."""
    folder = Path(sys.argv[1])
    for name in PAIRS:
        search(folder, name)
    decoys(folder)
    data = np.load(folder / "imagenet_vitb32.npz")
    imagenet = unit(data["images_4shot"]), unit(data["text_b"]), torch.from_numpy(data["labels_4shot"])
    classify("ImageNet", *imagenet)
    data = np.load(folder / "caltech101_vitb32.npz")
    known = data["text_classes"].tolist()
    kept = np.isin(data["test_labels"], known)
    places = torch.tensor([known.index(label) for label in data["test_labels"][kept]])
    caltech = unit(data["test_images"][kept]), unit(data["text"]), places
    classify("Caltech, classes of 10 to 240 images", *caltech)
    flowers = unit(np.load(folder / "flowers102_vitb32.npz")["test_images"])
    classify("Caltech, bank of ImageNet", *caltech, imagenet[0])
    classify("Caltech, bank of flowers", *caltech, flowers)
    classify("ImageNet, bank of Caltech", *imagenet, caltech[0])
    classify("ImageNet, bank of flowers", *imagenet, flowers)
    for path in sorted((folder / "whurs19").glob("*.npz")):
        data = np.load(path)
        classify(
            path.stem,
            unit(data["images"]),
            F.normalize(unit(data["texts"]).mean(0), dim=-1),
            torch.from_numpy(data["labels"]),
        )


if __name__ == "__main__":
    main()
