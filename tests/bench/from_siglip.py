"""A start from a SigLIP model beside one from scratch, on the demo's data: the table of docs/how-to/start-from-clip.md.

    python -m tests.bench.from_siglip --data data/emoji --out runs/from-siglip

A small SigLIP model of open_clip (its own classes and loss; timm's image tower) is trained on one half of the training
shards and never sees the other. Of that half ProLIP models of the same sizes are trained by the demo's recipe for as
many steps each, from the SigLIP model and from random weights; runs of one kind differ in their seed alone. What is
measured is the demo's test split: emoji that neither half has, in designs that both have.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from tests.support.siglip import architecture, pretrain

from prolip.demo.run import RESULTS, evaluate
from prolip.demo.suite import RIGHT, VIEWS
from prolip.models.hub import save_pretrained
from prolip.pretrained.sources import load_network
from prolip.train.loop import main as train

BATCH = 128
LOCKED = ("--lock.image", "True", "--lock.text", "True")
KINDS: dict[str, tuple[str, ...]] = {
    "all trained": (),
    "from scratch": (),
    "new [UNC] alone": LOCKED,
    "image tower locked": LOCKED[:2],
    "text tower locked but for two groups": (*LOCKED[2:], "--lock.text_unlocked_groups", "2"),
}
"""Flags of each row; all but one start from the SigLIP model."""
_OF = "held-out emoji, OpenMoji"
MEASURES = {
    "group": f"{RIGHT}: group, {_OF}: accuracy",
    "subgroup": f"{RIGHT}: subgroup, {_OF}: accuracy",
    "right caption in the first 10": f"{RIGHT}: names, {_OF}: image to name R@10",
    "right image in the first 10": f"{RIGHT}: names, {_OF}: name to image R@10",
    "P(patches hidden > whole image)": f"{VIEWS}: {_OF}: patches hidden",
}
"""Columns: of held-out emoji."""


def recipe(options: argparse.Namespace, half: int, steps: int) -> list[str]:
    """The demo's recipe on one half of its training shards."""
    shards = [str(options.data / f"train-{number:06d}.tar") for number in (2 * half, 2 * half + 1)]
    data = ["--data.shards", *shards, "--data.tokenizer.path", str(options.data / "tokenizer.json")]
    length = ["--samples_seen", str(steps * BATCH), "--batch_size", str(BATCH), "--checkpoint_every", str(steps)]
    once = ["--cpu_threads", "1", "--data.num_threads", "1", "--precision", "fp32"]
    return ["demo", *data, *length, *once]


def run(options: argparse.Namespace) -> Iterator[list[str]]:
    """Trains and evaluates; the rows of the table."""
    described = architecture("vit_prolip_emoji", 36, width=128, heads=4, layers=2, vocab=2000, context=20)
    start = pretrain(
        options.out / "emoji-siglip", described, recipe(options, 0, options.pretraining), options.pretraining
    )
    whole = save_pretrained(load_network(start), options.out / "start", tokenizer=options.data / "tokenizer.json")
    yield ["the SigLIP model itself", *(f"{100 * share:.1f}" for share in figures(whole, options.data)), ""]
    for kind, flags in KINDS.items():
        of_seeds = [measured(options, start, kind, flags, seed) for seed in range(options.seeds)]
        *shares, loss = zip(*of_seeds, strict=True)
        yield [kind, *(spread(column, 100, 1) for column in shares), spread(loss, 1, 3)]


def measured(options: argparse.Namespace, start: str, kind: str, flags: tuple[str, ...], seed: int) -> list[float]:
    """The measures of one run, and its contrastive loss over the last rows of metrics."""
    place = options.out / f"{kind} {seed}"
    words = [*recipe(options, 1, options.steps), *flags, "--architecture", "start_from", "--start_from", start]
    if kind == "from scratch":
        # The start's own sizes, random, and the demo's start of scale and bias.
        words[0] = str(options.out / "all trained 0" / "config.toml")
        words += ["--architecture", "demo", "--start_from", "None", "--model.init_logit_bias", "-10"]
    if train([*words, "--seed", str(seed), "--out", str(place)]) != 0:
        raise ValueError(f"training failed: {place}")
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    if rows[-1]["step"] < options.steps:
        raise ValueError(f"a signal ended the training: {place}")
    return [*figures(place, options.data), float(np.mean([row["ppcl"] for row in rows[-3:]]))]


def figures(source: Path, data: Path) -> list[float]:
    """The measures of a model."""
    evaluate(source, data, source / RESULTS)
    found = json.loads((source / RESULTS).read_text(encoding="utf-8"))["figures"]
    by_key = {f"{one['task']}: {one['metric']}": next(iter(one["value"].values())) for one in found}
    return [by_key[key] for key in MEASURES.values()]


def spread(values: Sequence[float], factor: float, digits: int) -> str:
    """Mean ± standard deviation of a sample; a single value has no deviation."""
    mean = f"{factor * np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {factor * np.std(values, ddof=1):.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="what `prolip data build emoji` wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/from-siglip"), help="folder of the runs")
    parser.add_argument("--pretraining", type=int, default=600, help="steps of the SigLIP model")
    parser.add_argument("--steps", type=int, default=200, help="steps of each run")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.out = options.out.resolve()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    heads = ["", *MEASURES, "PPCL at the end"]
    for row in chain([heads, ["---"] * len(heads)], run(options)):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
