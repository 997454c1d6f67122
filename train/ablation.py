"""Ablate the terms of the loss, and the choice of samples, on the demo's data: the runs and tables of docs/ablation.md.

    python train/ablation.py choose         # choose samples with a trained model, for the recipes of `CHOICES`
    python train/ablation.py run            # train and evaluate the runs that do not exist yet
    python train/ablation.py table          # print the table of the existing runs, as Markdown
    python train/ablation.py neighbours     # print the order that calibrated variances would give, by logit scale

Each recipe is the demo's recipe with more flags of `prolip train`. Runs of one recipe differ only in their seed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from prolip.data.selection import read_selection, write_selection
from prolip.demo.run import RESULTS, evaluate, machine_flags
from prolip.demo.samples import embed_captions, read_set, set_names
from prolip.demo.suite import INCLUSION, ORDER, RIGHT, VIEWS, order_rows
from prolip.gaussian import Gaussian
from prolip.pretrained.open import load

NO_MASKING = ("--data.mask.masked_fraction", "0", "--loss.masked_inclusion_weight", "0")
NO_INCLUSION = ("--loss.inclusion_weight", "0")
NO_VIB = ("--loss.vib_weight", "0")
ONE_SCALE = (
    *("--loss.variance_scale", "None", "--model.init_logit_bias", "-5.466"),
    *("--model.vision.init_unc_bias", "-6", "--model.text.init_unc_bias", "-6"),
)
"""PPCL sets variances by the scale of the means; they start larger than the demo's."""
NO_HIERARCHY = ("--data.mask.general_prob", "0")
OFFICIAL = (*ONE_SCALE, *NO_HIERARCHY, "--loss.inclusion_form", "official")
RECIPES: dict[str, tuple[str, ...]] = {
    "ppcl": (*ONE_SCALE, *NO_MASKING, *NO_INCLUSION, *NO_VIB),
    "vib": (*ONE_SCALE, *NO_MASKING, *NO_INCLUSION),
    "inclusion": (*ONE_SCALE, *NO_MASKING),
    "masking": (*ONE_SCALE, *NO_HIERARCHY),
    "hierarchical": ONE_SCALE,
    "bottleneck": (*ONE_SCALE, *NO_MASKING, *NO_INCLUSION, "--loss.vib_weight", "1"),
    "own scale": (*NO_MASKING, *NO_INCLUSION, *NO_VIB),
    "demo": (),
    "masked inclusion": (*ONE_SCALE, *NO_HIERARCHY, *NO_INCLUSION),
    "official": OFFICIAL,
    **{f"eps {eps}": (*OFFICIAL, "--loss.inclusion_eps", str(eps)) for eps in (0, -10, -100)},
    **{f"c {scale}": (*OFFICIAL, "--loss.inclusion_scale", str(scale)) for scale in (1, 10)},
}
"""Up to "hierarchical", each recipe adds one thing to the one before: VIB, image in caption, masked views, and more
general captions as masked views. "bottleneck" is "vib" with 10,000 times the weight. In the next two, variances learn
at a scale of their own: alone, and with everything else. "masked inclusion" is "masking" without images in captions.
From "official" on, "masking" has the official inclusion score, with other values of eps (-20) and c (1000)."""
CHOICES = ("all", "random", "certain", "inside", "deduplicated")
"""Recipes that are the demo's as it is now, on some of the training samples."""
NAMES = (*RECIPES, *CHOICES)
SHARE, THRESHOLD = 0.7, 0.9875
"""Share of the samples to choose; cosine of near-duplicates, with which about as many stay."""
SMALLER = ("--model.vision.patch_size", "9", "--model.vision.layers", "2")
NARROW = [flag for key in ("vision.width", "text.width", "embed_dim") for flag in (f"--model.{key}", "64")]
SIZES = {"full": (), "half": SMALLER, "tiny": (*SMALLER, *NARROW, "--model.text.heads", "2")}
"""The model: the demo's; with half its compute (16 patches instead of 36, 2 blocks instead of 4 in the image tower);
and that with a width of 64."""
AS_THEN = (
    *("--optim.hidden", "adamw", "--optim.lr", "1e-3"),
    *("--data.augment.jitter_prob", "0.8", "--data.augment.gray_prob", "0.2"),
)
"""The demo's optimizer and augmentation when the tables of docs/ablation.md were measured. The shards had no mirrored
copies."""
SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
CPU = torch.device("cpu")

Figures = dict[str, tuple[float, ...]]
"""Values of the model and of the untrained one, by figure."""

_GROUPS = f"{RIGHT}: group, held-out emoji"
_SUBGROUPS = f"{RIGHT}: subgroup, held-out emoji"
_NAMES = f"{RIGHT}: names, trained emoji, Twemoji"
_UNSEEN, _TRAINED = f"{ORDER}: unseen names", f"{ORDER}: trained names"
MEASURES = {
    "group, held-out emoji": f"{_GROUPS}, OpenMoji: accuracy",
    "subgroup, held-out emoji": f"{_SUBGROUPS}, OpenMoji: accuracy",
    "group, held-out emoji and design": f"{_GROUPS}, Twemoji: accuracy",
    "subgroup, held-out emoji and design": f"{_SUBGROUPS}, Twemoji: accuracy",
    "right caption in the first 10, held-out design": f"{_NAMES}: image to name R@10",
    "right image in the first 10, held-out design": f"{_NAMES}: name to image R@10",
    "P(group > name)": f"{_UNSEEN}: group over name",
    "P(subgroup > name)": f"{_UNSEEN}: subgroup over name",
    "P(group > name), name not longer": f"{_UNSEEN}: group over name, name not longer",
    "P(subgroup > name), name not longer": f"{_UNSEEN}: subgroup over name, name not longer",
    "P(group > subgroup), subgroup not longer": f"{_UNSEEN}: group over subgroup, subgroup not longer",
    "P(group > name), trained names": f"{_TRAINED}: group over name",
    "P(patches hidden > whole image)": f"{VIEWS}: held-out emoji, OpenMoji: patches hidden",
    "image lies in its name": f"{INCLUSION}: held-out emoji, OpenMoji: image ⊂ name",
}
"""Rows of the table: figures of results.json, shares on the test split."""


def arguments(recipe: str, seed: int, options: argparse.Namespace) -> list[str]:
    """Return the arguments of `prolip train` for a run: on one core, with a single checkpoint at the end."""
    steps, batch, data = options.steps, options.batch, options.data
    length = ["--samples_seen", str(steps * batch), "--batch_size", str(batch), "--checkpoint_every", str(steps)]
    place = ["--out", str(folder(recipe, seed, options)), "--cpu_threads", "1", "--data.num_threads", "1"]
    read = ["--data.shards", f"{data}/train-*.tar", "--data.tokenizer.path", f"{data}/tokenizer.json"]
    if recipe not in CHOICES:
        read += [*AS_THEN, *RECIPES[recipe]]
    elif recipe != "all":
        read += ["--data.selection", str(selection(recipe, seed, options))]
    return ["demo", "--seed", str(seed), *length, *place, *SIZES[options.size], *machine_flags(), *read]


def folder(recipe: str, seed: int, options: argparse.Namespace) -> Path:
    """Return the folder of a run."""
    out: Path = options.out
    return out / f"{recipe}-{seed}"


def selection(recipe: str, seed: int, options: argparse.Namespace) -> Path:
    """Return the file that says on which samples a run trains; only random samples depend on the seed."""
    out: Path = options.out
    return out / f"{recipe}-{seed if recipe == 'random' else 'any'}.parquet"


def choose(options: argparse.Namespace) -> int:
    """Choose samples for `CHOICES`: random ones, the most certain, those deepest in their names, and distinct ones."""

    def prolip(*words: object) -> None:
        subprocess.run([sys.executable, "-m", "prolip.cli", *map(str, words)], check=True)

    folder, shards = options.out / "embeddings", f"{options.data}/train-*.tar"
    paths = {recipe: selection(recipe, 0, options) for recipe in CHOICES}
    what = ("--what", "both", "--log_var", "--caption_key", "captions.name")
    prolip("embed", "--checkpoint", options.checkpoint, "--shards", shards, "--out", folder, *what)
    for recipe, by, share in (("all", "image", 1), ("certain", "image", SHARE), ("inside", "inclusion", SHARE)):
        prolip("data", "select", "--embeddings", folder, "--by", by, "--keep_share", share, "--out", paths[recipe])
    prolip("data", "dedupe", "--embeddings", folder, "--threshold", THRESHOLD, "--out", paths["deduplicated"])
    whole = list(read_selection(paths["all"]))
    ends = np.cumsum([len(one.rows) for one in whole])
    for seed in range(options.seeds):
        drawn = np.random.default_rng(seed).permutation(ends[-1]) < int(SHARE * ends[-1])
        parts = zip(whole, np.split(drawn, ends[:-1]), strict=True)
        write_selection(selection("random", seed, options), (one._replace(rows=one.rows[kept]) for one, kept in parts))
    return 0


def run(options: argparse.Namespace) -> int:
    """Train and evaluate every recipe with every seed, except runs that exist already."""
    for seed in range(options.seeds):
        for recipe in options.recipes:
            place = folder(recipe, seed, options)
            results = place / RESULTS
            if results.exists():
                continue
            command = [sys.executable, "-m", "prolip.train", *arguments(recipe, seed, options)]
            status = subprocess.run(command, check=False).returncode
            if status != 0:
                return status
            evaluate(place, options.data, results)
    return 0


def table(options: argparse.Namespace) -> int:
    """Print the table of the existing runs."""
    found = {name: [_read(path) for path in sorted(options.out.glob(f"{name}-*/{RESULTS}"))] for name in NAMES}
    sys.stdout.writelines(f"{line}\n" for line in lines({name: runs for name, runs in found.items() if runs}))
    return 0


def lines(found: dict[str, list[Figures]]) -> Iterator[str]:
    """Yield the table: one row per measure, one column per recipe and one for the untrained model.

    Numbers are in percent, mean ± standard deviation over seeds. The untrained model is the same for all runs.

    Raises:
        ValueError: there are no runs.
    """
    if not found:
        raise ValueError("there are no runs: train some first")
    first = next(iter(found.values()))[0]
    heads = ["", "untrained", *(f"{name} ({len(runs)})" for name, runs in found.items())]
    yield _row(heads)
    yield _row(["---"] * len(heads))
    for label, key in MEASURES.items():
        cells = (spread([result[key][0] for result in runs]) for runs in found.values())
        yield _row([label, spread([first[key][1]]), *cells])


def neighbours(options: argparse.Namespace) -> int:
    """Print the order that calibrated variances would give in the PPCL-only runs, by logit scale."""
    models = [path.parent for path in sorted(options.out.glob("ppcl-*/checkpoints"))]
    if not models:
        raise ValueError("there are no runs of the recipe ppcl: train some first")
    found = [calibrated_order(model, options.data) for model in models]
    rows: list[Sequence[str]] = [["scale", "P(group > name)", "P(group > name), name not longer"], ["---"] * 3]
    for place, scale in enumerate(SCALES):
        by_kind = zip(*(one[place] for one in found), strict=True)
        rows.append([f"{scale:g}", *map(spread, by_kind)])
    sys.stdout.writelines(f"{_row(row)}\n" for row in rows)
    return 0


def calibrated_order(source: Path, data: Path) -> list[tuple[float, float]]:
    """Compute P(group > name) on unseen names for each of `SCALES`: over all pairs, and over those with no longer name.

    The variances are calibrated on the training images; the model's own variances are not used.
    """
    opened = load(source, device=CPU, beside=data)
    held_out = [sample for name in set_names("test")[:-1] for sample in read_set(data, name)]
    trained = opened.encode_images([sample.png for sample in read_set(data, "train")], progress=False)
    captions = embed_captions(opened, held_out)
    shares = []
    for scale in SCALES:
        # Only the order of the variances is read, which the exponential of a log variance keeps.
        log_var = calibrated_var(captions.gaussian, trained, scale)[:, None]
        share, not_longer, *_ = order_rows("", held_out, captions._replace(gaussian=Gaussian(log_var, log_var)))
        shares.append((share.value, not_longer.value))
    return shares


def calibrated_var(items: Gaussian, others: Gaussian, scale: float) -> torch.Tensor:
    """Compute the total variances at which all items predict equally many positives, up to a constant, f64 [N].

    (2 / scale) ln sum_i exp(scale (mean_i . mean - var_i / 2)) over `others`: images for captions, or the reverse.
    Positives are rare, so a prediction is nearly the exponential of its logit (docs/ablation.md).
    """
    similarity = items.mean.double() @ others.mean.double().T - others.total_var.double() / 2
    return (2 / scale) * (scale * similarity).logsumexp(1)


def spread(shares: Sequence[float]) -> str:
    """Format the mean ± standard deviation of shares in percent; a single value has no deviation."""
    mean = f"{100 * np.mean(shares):.1f}"
    return mean if len(shares) == 1 else f"{mean} ± {100 * np.std(shares, ddof=1):.1f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _read(path: Path) -> Figures:
    """Read the value of each figure of results.json and that of the untrained model, by name."""
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    found = {
        f"{one['task']}: {one['metric']}": (*one["value"].values(), one["baselines"].get("untrained"))
        for one in figures
    }
    return {key: tuple(math.nan if value is None else value for value in values) for key, values in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status, that of a failed training, or 2 if there are no runs."""
    parser = argparse.ArgumentParser(description="The ablation of docs/ablation.md.")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of the runs")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="what `prolip data build emoji` wrote")
    commands = parser.add_subparsers(required=True)
    parser.add_argument("--seeds", type=int, default=3)
    chooser = commands.add_parser("choose", help="choose samples")
    chooser.add_argument("--checkpoint", required=True, help="the model that scores them")
    chooser.set_defaults(command=choose)
    runs = commands.add_parser("run", help="train and evaluate")
    runs.add_argument("--steps", type=int, default=500)
    runs.add_argument("--batch", type=int, default=128)
    runs.add_argument("--size", choices=tuple(SIZES), default="half", help="size of the model")
    runs.add_argument("--recipes", nargs="+", choices=NAMES, default=list(RECIPES))
    runs.set_defaults(command=run)
    commands.add_parser("table", help="print the table").set_defaults(command=table)
    commands.add_parser("neighbours", help="print the order by logit scale").set_defaults(command=neighbours)
    options = parser.parse_args(arguments)
    try:
        status: int = options.command(options)
    except ValueError as error:
        sys.stderr.write(f"ablation: {error}\n")
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
