"""Ablate the terms of the loss, and the choice of samples, on the demo's data: the runs and tables of docs/results.md.

    python docs/ablation.py choose         # choose samples with a trained model, for the recipes of `CHOICES`
    python docs/ablation.py run            # train and evaluate the runs that do not exist yet
    python docs/ablation.py table          # print the table of the existing runs, as Markdown
    python docs/ablation.py neighbours     # print the order that calibrated variances would give, by logit scale

Each recipe is the demo's recipe with more flags of `prolip train`. Runs of one recipe differ only in their seed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from studies import print_table, run_module, spread

from prolip.build.emoji.samples import read_set
from prolip.demo.run import RESULTS, evaluate, machine_flags
from prolip.demo.suite import INCLUSION, ORDER, RIGHT, VIEWS, embed_captions, order_rows, set_names
from prolip.evaluation.results import RowId
from prolip.gaussian import Gaussian
from prolip.inference.load_model import load
from prolip.store.selection import read_selection, write_selection

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
"""The demo's optimizer and augmentation when the tables of docs/results.md were measured. The shards had no mirrored
copies."""
SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
CPU = torch.device("cpu")

Figures = dict[RowId, tuple[float, ...]]
"""Values of the model and of the untrained one."""

_RIGHT = RowId("accuracy", group=RIGHT)
_RECALL = RowId("recall_at", group=RIGHT, data="trained emoji, Twemoji", at=10)
_UNSEEN = RowId("", group=ORDER, data="unseen names")
_INSIDE = RowId("image_inside_name", group=INCLUSION, data="held-out emoji, OpenMoji")
MEASURES = {
    "group, held-out emoji": replace(_RIGHT, data="held-out emoji, OpenMoji", of="group"),
    "subgroup, held-out emoji": replace(_RIGHT, data="held-out emoji, OpenMoji", of="subgroup"),
    "group, held-out emoji and design": replace(_RIGHT, data="held-out emoji, Twemoji", of="group"),
    "subgroup, held-out emoji and design": replace(_RIGHT, data="held-out emoji, Twemoji", of="subgroup"),
    "right caption in the first 10, held-out design": replace(_RECALL, way="image_to_text"),
    "right image in the first 10, held-out design": replace(_RECALL, way="text_to_image"),
    "P(group > name)": replace(_UNSEEN, measure="group_over_name"),
    "P(subgroup > name)": replace(_UNSEEN, measure="subgroup_over_name"),
    "P(group > name), name not longer": replace(_UNSEEN, measure="group_over_name_not_longer"),
    "P(subgroup > name), name not longer": replace(_UNSEEN, measure="subgroup_over_name_not_longer"),
    "P(group > subgroup), subgroup not longer": replace(_UNSEEN, measure="group_over_subgroup_not_longer"),
    "P(group > name), trained names": replace(_UNSEEN, measure="group_over_name", data="trained names"),
    "P(patches hidden > whole image)": replace(_INSIDE, measure="more_uncertain", by="hidden_patches", group=VIEWS),
    "image lies in its name": _INSIDE,
}
"""Rows of the table: figures of results.json, shares on the test split."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The ablation of docs/results.md."""

    command: tyro.conf.Positional[Literal["choose", "run", "table", "neighbours"]]
    """Choose samples, train and evaluate, print the table, or print the order by logit scale."""
    out: Path = Path("runs/ablation")
    """Folder of the runs."""
    data: Path = Path("data/emoji")
    """What `prolip data build emoji` wrote."""
    seeds: int = 3
    checkpoint: str = "runs/demo"
    """The model that scores samples for `choose`."""
    steps: int = 500
    batch: int = 128
    size: Literal["full", "half", "tiny"] = "half"
    """Size of the model."""
    recipes: tuple[str, ...] = tuple(RECIPES)
    """Recipes to run."""

    def folder(self, recipe: str, seed: int) -> Path:
        """Folder of a run."""
        return self.out / f"{recipe}-{seed}"

    def selection(self, recipe: str, seed: int) -> Path:
        """The selection that a run trains on; only random samples depend on the seed."""
        return self.out / f"{recipe}-{seed if recipe == 'random' else 'any'}.parquet"


def arguments(recipe: str, seed: int, options: Options) -> list[str]:
    """Words of `prolip train` for a run: on one core, with a single checkpoint at the end."""
    steps, batch, data = options.steps, options.batch, options.data
    length = ["--samples_seen", str(steps * batch), "--batch_size", str(batch), "--checkpoint_every", str(steps)]
    place = ["--out", str(options.folder(recipe, seed)), "--cpu_threads", "1", "--data.num_threads", "1"]
    read = ["--data.shards", f"{data}/train-*.tar", "--data.tokenizer.path", f"{data}/tokenizer.json"]
    if recipe not in CHOICES:
        read += [*AS_THEN, *RECIPES[recipe]]
    elif recipe != "all":
        read += ["--data.selection", str(options.selection(recipe, seed))]
    return ["demo", "--seed", str(seed), *length, *place, *SIZES[options.size], *machine_flags(), *read]


def choose(options: Options) -> None:
    """Choose samples for `CHOICES`: random ones, the most certain, those deepest in their names, and distinct ones."""
    folder, shards = options.out / "embeddings", f"{options.data}/train-*.tar"
    paths = {recipe: options.selection(recipe, 0) for recipe in CHOICES}
    what = ("--what", "both", "--log_var", "--caption_key", "captions.name")
    run_module("prolip.cli", "embed", "--checkpoint", options.checkpoint, "--shards", shards, "--out", folder, *what)
    read = ("--embeddings", folder)
    for recipe, by, share in (("all", "image", 1), ("certain", "image", SHARE), ("inside", "inclusion", SHARE)):
        how = ("--by", by, "--keep_share", share, "--out", paths[recipe])
        run_module("prolip.cli", "data", "select", *read, *how)
    run_module("prolip.cli", "data", "dedupe", *read, "--threshold", THRESHOLD, "--out", paths["deduplicated"])
    whole = list(read_selection(paths["all"]))
    ends = np.cumsum([len(one.rows) for one in whole])
    for seed in range(options.seeds):
        drawn = np.random.default_rng(seed).permutation(ends[-1]) < int(SHARE * ends[-1])
        parts = zip(whole, np.split(drawn, ends[:-1]), strict=True)
        write_selection(options.selection("random", seed), (one._replace(rows=one.rows[kept]) for one, kept in parts))


def run(options: Options) -> None:
    """Train and evaluate every recipe with every seed, except runs that exist already."""
    for seed in range(options.seeds):
        for recipe in options.recipes:
            place = options.folder(recipe, seed)
            if not (place / RESULTS).exists():
                run_module("prolip.train", *arguments(recipe, seed, options))
                evaluate(place, options.data, place / RESULTS)


def table(options: Options) -> None:
    """Print a row per measure, a column per recipe and one for the untrained model: mean ± deviation over seeds."""
    runs = {name: [read(path) for path in sorted(options.out.glob(f"{name}-*/{RESULTS}"))] for name in NAMES}
    columns = [(name, figures) for name, figures in runs.items() if figures]
    heads = ["", "untrained", *(f"{name} ({len(figures)})" for name, figures in columns)]
    rows = []
    for label, key in MEASURES.items():
        values = [[100 * one[key][0] for one in figures] for _, figures in columns]
        rows.append([label, spread([100 * columns[0][1][0][key][1]]), *map(spread, values)])
    print_table(heads, rows)


def read(path: Path) -> Figures:
    """Read results.json: the value of each figure and that of the untrained model."""
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    values = {RowId(**one["id"]): (*one["value"].values(), one["baselines"].get("untrained")) for one in figures}
    return {id: tuple(math.nan if value is None else value for value in pair) for id, pair in values.items()}


def neighbours(options: Options) -> None:
    """Print the order that calibrated variances would give in the PPCL-only runs, by logit scale."""
    models = [path.parent for path in sorted(options.out.glob("ppcl-*/checkpoints"))]
    orders = torch.tensor([calibrated_order(model, options.data) for model in models])  # [runs, scales, 2]
    rows = [
        [f"{scale:g}", *map(spread, (100 * shares).T.tolist())]
        for scale, shares in zip(SCALES, orders.unbind(1), strict=True)
    ]
    print_table(["scale", "P(group > name)", "P(group > name), name not longer"], rows)


def calibrated_order(source: Path, data: Path) -> list[tuple[float, float]]:
    """P(group > name) on unseen names for each of `SCALES`: over all pairs, and over those with no longer name.

    The variances are calibrated on the training images.
    """
    opened = load(source, device=CPU)
    held_out = [sample for name in set_names("test")[:-1] for sample in read_set(data, name)]
    trained = opened.encode_images([sample.png for sample in read_set(data, "train")], progress=False)
    captions = embed_captions(opened, held_out)
    shares = []
    for scale in SCALES:
        # Only the order of the variances is read, which the exponential of a log variance keeps.
        log_var = calibrated_var(captions.gaussian, trained, scale)[:, None]
        share, not_longer, *_ = order_rows(held_out, captions._replace(gaussian=Gaussian(log_var, log_var)))
        shares.append((share.value, not_longer.value))
    return shares


def calibrated_var(items: Gaussian, others: Gaussian, scale: float) -> torch.Tensor:
    """Total variances at which all items predict equally many positives, up to a constant, f64 [N] (docs/results.md).

    (2 / scale) ln sum_i exp(scale (mean_i . mean - var_i / 2)) over `others`: images for captions, or the reverse.
    """
    similarity = items.mean.double() @ others.mean.double().T - others.total_var.double() / 2
    return (2 / scale) * (scale * similarity).logsumexp(1)


if __name__ == "__main__":
    chosen = tyro.cli(Options, use_underscores=True)
    {"choose": choose, "run": run, "table": table, "neighbours": neighbours}[chosen.command](chosen)
