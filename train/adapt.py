"""Adapt a frozen model of the demo's data: the runs and the table of docs/adapting.md.

    python train/adapt.py run            # train a SigLIP and adapt it, unless that is done already
    python train/adapt.py table          # measure everything on the test split, and print the table as Markdown

The SigLIP is the demo's recipe without variances and masked views; --frozen names another model. Every way to adapt it
sees only the means of its embeddings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

import prolip
from prolip.demo.run import machine_flags
from prolip.demo.samples import Captions, Classes, correct_pairs, read_set, set_names
from prolip.demo.suite import embed_sets, order_rows
from prolip.metrics.config import Score
from prolip.metrics.retrieval import evaluate_retrieval
from prolip.metrics.statistics import auroc, value_of
from prolip.metrics.uncertainty import expected_calibration_error
from prolip.pretrained import Model
from prolip.pretrained.classify import classification

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


def folders(options: argparse.Namespace, split: str) -> list[Path]:
    """The folders of embeddings of a split, one for each level of captions."""
    return [options.out / "embeddings" / f"{split}-{level}" for level in LEVELS]


def frozen(options: argparse.Namespace) -> Path:
    """The frozen model's folder."""
    return options.frozen or Path(options.out / "siglip")


def run(options: argparse.Namespace) -> int:
    """Train the SigLIP, embed the pairs, and adapt in every way; steps whose result exists are skipped."""
    siglip, data = frozen(options), options.data
    if not (siglip / "checkpoints").exists():
        read = ["--data.shards", f"{data}/train-*.tar", "--data.tokenizer.path", f"{data}/tokenizer.json"]
        command("prolip.train", "demo", *SIGLIP, *read, "--out", str(siglip), *machine_flags(), *options.flags)
    for split, pattern in SPLITS.items():
        for level, folder in zip(LEVELS, folders(options, split), strict=True):
            arguments = [
                "--checkpoint",
                str(siglip),
                "--shards",
                f"{data}/{pattern}",
                "--what",
                "both",
                "--device",
                "cpu",
            ]
            command("prolip.cli", "embed", *arguments, "--caption_key", f"captions.{level}", "--out", str(folder))
        for way, flags in WAYS.items():
            out = options.out / f"{way}-{split}"
            if not (out / "cost.json").exists():
                arguments = ["--embeddings", *map(str, folders(options, split)), "--out", str(out), *flags]
                seconds = command("prolip.cli", "adapt", *arguments)
                (out / "cost.json").write_text(json.dumps({"seconds": seconds}))
    return 0


def command(module: str, *arguments: str) -> float:
    """Run a module in a process of its own; returns its seconds.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)
    return time.monotonic() - started


# ---- Measuring ------------------------------------------------------------------------------------------------------


def measure(model: Model, data: Path) -> dict[str, float]:
    """Measure a model on the test split, with its own scale and bias."""
    names = set_names("test")
    seen = embed_sets(model, {name: read_set(data, name) for name in names}, names)
    first, last, captions = seen.sets[0], seen.sets[2], seen.captions
    by_level: dict[str, dict[str, float]] = {}
    for classes in seen.classes:
        confidence, answers = zero_shot(model, first.images, classes, captions).max(1)
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
    score: Score = "csd" if model.has_csd else "mean"
    found["right caption in the first 10"] = evaluate_retrieval(last.images, texts, correct, score).recall_at_10
    if model.has_variances:
        order = order_rows("", [sample for one in seen.held_out for sample in one.samples], captions)
        shares = {row.metric: row.value for row in order}
        for general in ("group", "subgroup"):
            found[f"P({general} > name), not longer"] = shares[f"{general} over name, name not longer"]
    return found


def zero_shot(model: Model, images: prolip.Gaussian, classes: Classes, captions: Captions) -> Tensor:
    """Probabilities of the classes, [N, C], as `model.classify` returns them."""
    prompts = classes.embedded(captions)
    return classification(images, prompts, classes.names, weights=None, similarity=model.similarity).probabilities


def table(options: argparse.Namespace) -> int:
    """Measure the SigLIP, the ProLIP and all that was adapted, and print a table."""
    sources = {"frozen" if options.frozen else "SigLIP": [frozen(options)]}
    if options.prolip != options.frozen:
        sources["ProLIP"] = [options.prolip]
    sources |= {way: [options.out / f"{way}-{split}" for split in SPLITS] for way in WAYS}
    columns: dict[str, list[dict[str, float]]] = {}
    for name, paths in sources.items():
        found = [measure_source(path, options.data) if path.exists() else {} for path in paths]
        if any(found):
            columns[name] = found
    sys.stdout.writelines(f"{line}\n" for line in lines(columns))
    return 0


def measure_source(source: Path, data: Path) -> dict[str, float]:
    """Measure a run or an adapted model, with the seconds that it took to adapt."""
    cost = source / "cost.json"
    found = measure(prolip.load(source, device="cpu", beside=data), data)
    return found | (json.loads(cost.read_text()) if cost.exists() else {})


def lines(columns: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """Yield the table, one row per measure: shares in percent, areas and errors between 0 and 1.

    A cell of an adapted model has the figure of each of `SPLITS`.
    """
    yield f"| | {' | '.join(columns)} |"
    yield "|".join(["", "---", *["---:"] * len(columns), ""])
    names = dict.fromkeys(name for column in columns.values() for one in column for name in one)
    for name in names:
        cells = [shown(name, [one.get(name) for one in column]) for column in columns.values()]
        yield f"| {name} | {' | '.join(cells)} |"


def shown(name: str, values: Sequence[float | None]) -> str:
    """A cell of the table."""
    if all(value is None for value in values):
        return "–"
    if name == "seconds":
        form = "{:.0f}".format
    elif "ECE" in name or "AUROC" in name:
        form = "{:.3f}".format
    else:
        form = "{:.1%}".format
    return ", ".join("–" if value is None else form(value).rstrip("%") for value in values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(description="The study of docs/adapting.md.")
    parser.add_argument("--out", type=Path, default=Path("runs/adapt"), help="folder of everything that is made")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="what `prolip data build emoji` wrote")
    parser.add_argument("--prolip", type=Path, default=Path("runs/demo"), help="a run trained as ProLIP, for the table")
    parser.add_argument("--frozen", type=Path, help="a run to adapt, instead of a SigLIP that is trained for it")
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train and adapt")
    runs.add_argument("flags", nargs="*", help="further flags of `prolip train` for the SigLIP, after --")
    runs.set_defaults(command=run)
    commands.add_parser("table", help="measure, and print the table").set_defaults(command=table)
    options = parser.parse_args(arguments)
    status: int = options.command(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
