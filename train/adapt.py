"""Adapt a frozen model of the demo's data: the runs and the table of docs/adapting.md.

    python train/adapt.py run            # train a SigLIP and adapt it, unless that is done already
    python train/adapt.py table          # measure everything on the test split, and print the table as Markdown

The SigLIP is the demo's recipe without variances and masked views; --frozen names another model. Every way to adapt it
sees only the means of its embeddings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

import prolip
from prolip.decisions.selective import auroc
from prolip.demo.run import machine_flags
from prolip.demo.suite.emoji_samples import EmbeddedCaptions
from prolip.demo.suite.evaluate import gather_captions, held_out, read_set, set_names
from prolip.demo.suite.measure_sets import ClassPrompts, correct_pairs, measure_levels, retrieval_caption
from prolip.eval.config import Score
from prolip.eval.retrieval import evaluate_retrieval
from prolip.eval.uncertainty import area_under_risk_coverage, expected_calibration_error
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
    "general": (),
    "one scale": ("--loss.variance_scale", "None"),
}
"""Flags of `prolip adapt`. "general" also names `MORE_GENERAL` as the masked views. With "one scale", variances learn at
the scale of the means."""
MORE_GENERAL = {"name": "subgroup", "subgroup": "group", "group": "group"}
"""A more general caption of the same image, by level."""


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
            words = ["--checkpoint", str(siglip), "--shards", f"{data}/{pattern}", "--what", "both", "--device", "cpu"]
            command("prolip.cli", "embed", *words, "--caption_key", f"captions.{level}", "--out", str(folder))
        for way, flags in WAYS.items():
            out = options.out / f"{way}-{split}"
            if not (out / "cost.json").exists():
                words = ["--embeddings", *map(str, folders(options, split)), "--out", str(out), *flags]
                if way == "general":
                    general = (options.out / "embeddings" / f"{split}-{level}" for level in MORE_GENERAL.values())
                    words += ["--masked", *map(str, general)]
                cost = command("prolip.cli", "adapt", *words)
                (out / "cost.json").write_text(json.dumps(cost))
    return 0


def command(module: str, *words: str) -> dict[str, float]:
    """Run a module in a process of its own; returns its seconds and its largest memory in MB.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", module, *words])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return {"seconds": time.monotonic() - started, "megabytes": usage.ru_maxrss / 1024}


# ---- Measuring ------------------------------------------------------------------------------------------------------


def measure(model: Model, data: Path) -> dict[str, float]:
    """Measure a model on the test split, with its own scale and bias."""
    (size, _) = model.preprocess.size
    sets = [read_set(data, name, size) for name in set_names("test")]
    book, prompts = gather_captions(sets)
    ids = model.tokenize(book.texts)
    lengths = (ids != model.tokenize("")[0, -1]).sum(1).double()
    captions = EmbeddedCaptions(book, model.encode_texts(book.texts, progress=False), lengths)
    first, last = sets[0], sets[2]
    found: dict[str, float] = {}
    images = model.encode_images(first.images, progress=False)
    for level in ("group", "subgroup"):
        probabilities = zero_shot(model, level, images, prompts, captions)
        confidence, answers = probabilities.max(1)
        right = answers == prompts.labels(level, first.samples)
        found |= {
            f"{level}, right": float(right.double().mean()),
            f"{level}, ECE": expected_calibration_error(confidence, right),
            f"{level}, AURC": area_under_risk_coverage(-confidence, right),
            f"{level}, AUROC of 1 - p": auroc(-confidence, ~right),
        }
        if model.has_variances:
            found[f"{level}, AUROC of image σ²"] = auroc(images.uncertainty, ~right)
    images = model.encode_images(last.images, progress=False)
    texts, correct = captions.of(map(retrieval_caption, last.samples)), correct_pairs(last.samples)
    score: Score = "csd" if model.has_csd else "mean"
    found["right caption in the first 10"] = evaluate_retrieval(images, texts, correct, score).recall_at_10
    found["right image in the first 10"] = evaluate_retrieval(texts, images, correct.T, score).recall_at_10
    if model.has_variances:
        for pair in measure_levels(held_out(sets), captions).pairs:
            found[f"P({pair.general} > {pair.specific})"] = pair.share
            found[f"P({pair.general} > {pair.specific}), not longer"] = pair.share_not_longer
    return found


def zero_shot(
    model: Model, level: str, images: prolip.Gaussian, prompts: ClassPrompts, captions: EmbeddedCaptions
) -> Tensor:
    """Probabilities of the classes, [N, C], as `model.classify` returns them."""
    gaussian, labels = prompts.gaussian(level, captions), prompts.names(level)
    return classification(images, gaussian, labels, weights=None, similarity=model.similarity).probabilities


def table(options: argparse.Namespace) -> int:
    """Measure the SigLIP, the ProLIP and all that was adapted, and print a table."""
    sources = {"frozen": frozen(options)}
    if options.prolip.exists() and options.prolip != options.frozen:
        sources["ProLIP"] = options.prolip
    for split in SPLITS:
        sources |= {f"{way}, {split}": options.out / f"{way}-{split}" for way in WAYS}
    columns: dict[str, dict[str, float]] = {}
    for name, source in sources.items():
        if source.exists():
            columns[name] = measure(prolip.load(source, device="cpu", beside=options.data), options.data)
            cost = source / "cost.json"
            if cost.exists():
                columns[name] |= json.loads(cost.read_text())
    (options.out / "table.json").write_text(json.dumps(columns, indent=1))
    sys.stdout.writelines(f"{line}\n" for line in lines(columns))
    return 0


def lines(columns: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield the table, one row per measure: shares in percent, areas and errors as they are."""
    yield f"|  | {' | '.join(columns)} |"
    yield "|".join(["", *["---"] * (len(columns) + 1), ""])
    names = dict.fromkeys(name for column in columns.values() for name in column)
    for name in names:
        cells = [shown(name, column.get(name)) for column in columns.values()]
        yield f"| {name} | {' | '.join(cells)} |"


def shown(name: str, value: float | None) -> str:
    """A cell of the table."""
    if value is None:
        return "-"
    if name in {"seconds", "megabytes"}:
        return f"{value:.0f}"
    return f"{value:.3f}" if any(word in name for word in ("ECE", "AURC", "AUROC")) else f"{100 * value:.1f}"


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
