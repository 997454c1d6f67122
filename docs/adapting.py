"""Adapt a frozen model of the demo's data: the runs and the table of docs/adapting.md.

    python docs/adapting.py run            # train a SigLIP and adapt it, unless that is done already
    python docs/adapting.py table          # measure everything on the test split, and print the table as Markdown

The SigLIP is the demo's recipe without variances and masked views; --frozen names another model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from studies import embed_test, print_table, run_module

import prolip
from prolip.demo.run import machine_flags
from prolip.demo.samples import correct_pairs
from prolip.demo.suite import order_rows
from prolip.inference import Model
from prolip.inference.classify import classification
from prolip.metrics.config import Score
from prolip.metrics.retrieval import evaluate_retrieval
from prolip.metrics.statistics import auroc, value_of
from prolip.metrics.uncertainty import expected_calibration_error

SIGLIP = (
    *("--model.vision.embed_unc", "False", "--model.text.embed_unc", "False"),
    *("--model.init_logit_bias", "-10", "--data.mask.masked_fraction", "0", "--loss.contrast", "siglip"),
    *("--loss.variance_scale", "None"),
    *("--loss.inclusion_weight", "0", "--loss.masked_inclusion_weight", "0", "--loss.vib_weight", "0"),
)
"""Flags after `prolip train demo`."""
SPLITS = {"trained": "train-*.tar", "new": "val-*.tar"}
"""Pairs that the SigLIP was trained on, and pairs that it was not."""
LEVELS = ("name", "subgroup", "group")
"""Captions of the pairs: each level is a folder of embeddings."""
WAYS: dict[str, tuple[str, ...]] = {
    "temperature": ("--method", "temperature"),
    "laplace": ("--method", "laplace"),
    "heads": (),
    "residual": ("--heads.means", "residual"),
    "one scale": ("--loss.variance_scale", "None"),
}
"""Flags of `prolip adapt`. With "one scale", variances learn at the scale of the means."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The study of docs/adapting.md."""

    command: tyro.conf.Positional[Literal["run", "table"]]
    """Train and adapt, or measure and print the table."""
    out: Path = Path("runs/adapt")
    """Folder of everything that is written."""
    data: Path = Path("data/emoji")
    """What `prolip data build emoji` wrote."""
    prolip: Path = Path("runs/demo")
    """A run trained as ProLIP, for the table."""
    frozen: Path | None = None
    """A run to adapt, instead of a SigLIP that is trained for it."""

    @property
    def source(self) -> Path:
        """Folder of the frozen model."""
        return self.frozen or self.out / "siglip"


def run(options: Options) -> None:
    """Train the SigLIP, embed the pairs, and adapt in every way; what exists is skipped."""
    source, data = options.source, options.data
    if not (source / "checkpoints").exists():
        read = ["--data.shards", f"{data}/train-*.tar", "--data.tokenizer.path", f"{data}/tokenizer.json"]
        run_module("prolip.train", "demo", *SIGLIP, *read, "--out", source, *machine_flags())
    for split, pattern in SPLITS.items():
        folders = [options.out / "embeddings" / f"{split}-{level}" for level in LEVELS]
        what = ("--checkpoint", source, "--shards", f"{data}/{pattern}", "--what", "both", "--device", "cpu")
        for level, folder in zip(LEVELS, folders, strict=True):
            run_module("prolip.cli", "embed", *what, "--caption_key", f"captions.{level}", "--out", folder)
        for way, flags in WAYS.items():
            out, started = options.out / f"{way}-{split}", time.monotonic()
            if not (out / "cost.json").exists():
                run_module("prolip.cli", "adapt", "--embeddings", *folders, "--out", out, *flags)
                (out / "cost.json").write_text(json.dumps({"seconds": time.monotonic() - started}))


def measure(model: Model, data: Path) -> dict[str, float]:
    """On the test split, with the model's own scale and bias."""
    seen = embed_test(model, data)
    first, last, captions = seen.sets[0], seen.sets[2], seen.captions
    by_level: dict[str, dict[str, float]] = {}
    for classes in seen.classes:
        prompts = classes.embedded(captions)
        zero_shot = classification(first.images, prompts, classes.names, weights=None, similarity=model.similarity)
        confidence, answers = zero_shot.probabilities.max(1)
        right = answers == classes.labels(first.samples)
        by_level[classes.level] = {
            "right": float(right.double().mean()),
            "ECE": expected_calibration_error(confidence, right),
            "AUROC of 1 − *p*": value_of(auroc, -confidence, ~right),
        }
        if model.has_variances:
            by_level[classes.level]["AUROC of image σ²"] = value_of(auroc, first.images.uncertainty, ~right)
    found = {f"{level}, {name}": of[name] for name in by_level["group"] for level, of in by_level.items()}
    texts, correct = captions.of(sample.text("name") for sample in last.samples), correct_pairs(last.samples)
    score: Score = "csd" if model.has_variances else "mean"
    found["right caption in the first 10"] = evaluate_retrieval(last.images, texts, correct, score).recall_at_10
    if model.has_variances:
        order = order_rows("", [sample for one in seen.held_out for sample in one.samples], captions)
        shares = {row.metric: row.value for row in order}
        for general in ("group", "subgroup"):
            found[f"P({general} > name), not longer"] = shares[f"{general} over name, name not longer"]
    return found


def table(options: Options) -> None:
    """Measure the SigLIP, the ProLIP and everything that was adapted; print a row for each measure.

    Shares are in percent, areas and errors between 0 and 1. A cell of an adapted model has one of each of `SPLITS`.
    """
    sources = {"frozen" if options.frozen else "SigLIP": [options.source]}
    if options.prolip != options.frozen:
        sources["ProLIP"] = [options.prolip]
    sources |= {way: [options.out / f"{way}-{split}" for split in SPLITS] for way in WAYS}
    columns: dict[str, list[dict[str, float]]] = {}
    for name, paths in sources.items():
        measured = [measure_source(path, options.data) if path.exists() else {} for path in paths]
        if any(measured):
            columns[name] = measured
    names = dict.fromkeys(name for column in columns.values() for one in column for name in one)
    cells = ([name, *(cell(name, [one.get(name) for one in column]) for column in columns.values())] for name in names)
    print_table(["", *columns], cells)


def measure_source(source: Path, data: Path) -> dict[str, float]:
    """Measure a run or an adapted model, with the seconds that it took to adapt."""
    cost = source / "cost.json"
    measured = measure(prolip.load(source, device="cpu", beside=data), data)
    return measured | (json.loads(cost.read_text()) if cost.exists() else {})


def cell(name: str, values: Sequence[float | None]) -> str:
    """One number, or one of each of `SPLITS`."""
    if all(value is None for value in values):
        return "–"
    form = "{:.0f}" if name == "seconds" else "{:.3f}" if "ECE" in name or "AUROC" in name else "{:.1%}"
    return ", ".join("–" if value is None else form.format(value).rstrip("%") for value in values)


if __name__ == "__main__":
    chosen = tyro.cli(Options, use_underscores=True)
    {"run": run, "table": table}[chosen.command](chosen)
