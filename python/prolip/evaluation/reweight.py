"""Re-weight prompts by how well they fit the images of a class (`prolip bprw`).

N images, C classes, K prompts per class, D dimensions.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from prolip.data import expand_shards
from prolip.data.samples import read_label
from prolip.decisions.config import NO_CSD
from prolip.embeddings.embed import Embedded, embed_shards
from prolip.errors import UserError, check_at_least
from prolip.evaluation.classification import embed_prompts
from prolip.evaluation.config import ReweightOptions
from prolip.evaluation.prompt_weights import save_prompt_weights
from prolip.evaluation.templates import CHAINED_TEMPLATES, PLAIN_TEMPLATES, imagenet_classnames, imagenet_templates
from prolip.files import check_writable, read_text, write_atomic
from prolip.gaussian import Gaussian
from prolip.metrics.bprw import PromptWeights, labelled_images, reweight_prompts
from prolip.metrics.prompts import SmallestInClass, WithinSpread, fill_templates, filter_prompts
from prolip.metrics.statistics import bootstrap, mean
from prolip.metrics.zero_shot import PUBLISHED_LOGIT_SCALE, aggregate_prompts, correct_within, zero_shot_logits
from prolip.pretrained.model import Model
from prolip.pretrained.open import load
from prolip.report.charts import standalone, weight_chart

_WEIGHTS = "prompt_weights.safetensors"
TEMPLATES = {
    "imagenet": lambda: imagenet_templates("all"),
    "simple": lambda: imagenet_templates("simple"),
    "emoji": lambda: list(dict.fromkeys((*PLAIN_TEMPLATES, *CHAINED_TEMPLATES))),
}


class Classes(NamedTuple):
    """Class names and labels."""

    names: list[str]
    """C names."""
    labels: Tensor | None
    """i64 [N], the images' classes; None if unknown."""


def run_reweight(options: ReweightOptions) -> list[str]:
    """Re-weight the prompts, write the files, and return the lines to print.

    Raises:
        UserError: the checkpoint, the shards, the names or a setting cannot be used; the message says which and why.
        DataError: an image's json has no class at `class_key`.
        OSError: a file is missing, or `out` cannot be written; see `check_writable`.
    """
    if options.class_key is None and (options.classnames is None or options.vote == "labelled"):
        wanted = "classnames is not given" if options.classnames is None else "vote is labelled"
        raise UserError(f"{wanted}: class_key must name the json field that holds an image's class")
    templates = read_templates(options.templates)
    fill_templates(templates, [""])
    check_at_least(1, batch_size=options.batch_size)
    check_writable(options.out / _WEIGHTS)
    expand_shards(list(options.shards), options.store)
    names = read_classnames(options.classnames)
    model = load(options.checkpoint, tokenizer=options.tokenizer, device=options.device)
    if model.epistemic:
        raise UserError(f"checkpoint: prompts are weighted by their Gaussians: {NO_CSD}")
    images = _embed_images(model, options)
    classes = find_classes(options.class_key, names, images)
    total = len(classes.names) * len(templates)
    with tqdm(total=total, desc="prompts", unit="prompt", file=sys.stderr) as bar:
        prompts = embed_prompts(model, classes.names, templates, on_progress=bar.update)
    with tqdm(total=len(classes.names), desc="weights", unit="class", file=sys.stderr) as bar:
        found = reweight_prompts(
            prompts.to(model.device),
            images.gaussian.to(model.device),
            options.bprw,
            labels=classes.labels if options.vote == "labelled" else None,
            on_progress=bar.update,
        )
    found = found.to(torch.device("cpu"))
    lines = [*class_lines(classes.names, templates, found.weights, options.show), ""]
    if classes.labels is not None:
        lines += accuracy_lines(prompts, images.gaussian, classes.labels, found, options)
    return [*lines, *_write(options, classes.names, templates, found)]


def read_templates(source: str) -> list[str]:
    """The templates of a named set or of a text file with one per line.

    Raises:
        UserError: `source` is neither, or the file is empty.
    """
    return TEMPLATES[source]() if source in TEMPLATES else _read_lines(source, "templates", list(TEMPLATES))


def read_classnames(source: str | None) -> list[str] | None:
    """The class names of ImageNet or of a text file with one per line; None for those in the images' json.

    Raises:
        UserError: `source` is neither, or the file is empty.
    """
    if source is None or source == "imagenet":
        return None if source is None else imagenet_classnames()
    return _read_lines(source, "classnames", ["imagenet"])


def find_classes(class_key: str | None, classnames: list[str] | None, images: Embedded) -> Classes:
    """Class names, by default the distinct values of `class_key`, and labels from the images' json.

    Raises:
        UserError: an image's class is not one of the names.
        DataError: an image's json has no class.
    """
    values: list[str | int] = []
    if class_key is not None:
        values = [
            read_label(key, member, class_key) for key, member in zip(images.keys, images.members["json"], strict=True)
        ]
    names = sorted({str(value) for value in values}) if classnames is None else classnames
    places: dict[str | int, int] = {name: place for place, name in enumerate(names)}
    if classnames is not None:
        places |= {place: place for place in range(len(names))}
    for key, value in zip(images.keys, values, strict=False):
        if value not in places and str(value) not in places:
            raise UserError(f"image {key}: its {class_key} is {value!r}, which is not a class name")
    labels = torch.tensor([places[value] if value in places else places[str(value)] for value in values])
    return Classes(names, labels if values else None)


def class_lines(names: Sequence[str], templates: Sequence[str], weights: Tensor, show: int) -> list[str]:
    """Lines with the largest and the smallest weights, [C, K], of each class."""
    show = min(show, max(1, len(templates) // 2))
    best, worst = weights.topk(show, dim=1), weights.topk(show, dim=1, largest=False)
    lines = [f"weights of {len(templates)} prompts per class; even weights would be {1 / len(templates):.4f}"]
    for row, name in enumerate(names):
        lines.append(name)
        for word, (values, places) in (("won", best), ("lost", worst)):
            pairs = zip(values[row].tolist(), places[row].tolist(), strict=True)
            lines.append(f"  {word:4}  " + "  ".join(f"{value:.4f} {templates[place]!r}" for value, place in pairs))
    return lines


def accuracy_lines(
    prompts: Gaussian, images: Gaussian, labels: Tensor, found: PromptWeights, options: ReweightOptions
) -> list[str]:
    """Lines with the top-1 accuracy of even weights, two filters and the new weights, and the gain of the latter."""
    scored = torch.ones(len(labels), dtype=torch.bool)
    if options.vote == "labelled":
        voters = labelled_images(labels, len(found.weights), options.bprw.num_neighbors)
        scored[voters[voters >= 0]] = False
    if not bool(scored.any()):
        return ["every image voted: none is left to score", ""]
    half = max(1, prompts.mean.shape[1] // 2)
    classifiers = {
        "even weights": aggregate_prompts(prompts),
        "prompts up to the mean uncertainty": filter_prompts(prompts, WithinSpread(num_std=0.0)),
        "the more certain half": filter_prompts(prompts, SmallestInClass(count=half)),
        "re-weighted": found.as_classifier(),
    }
    width = max(map(len, classifiers))
    lines = [f"{'top-1 of ' + str(int(scored.sum())) + ' images':{width}}  by mean  with variance"]
    hits: dict[str, Tensor] = {}
    for name, classifier in classifiers.items():
        logits = [
            zero_shot_logits(images.mean[scored], classifier.weight, var, logit_scale=PUBLISHED_LOGIT_SCALE)
            for var in (None, classifier.total_var)
        ]
        hits[name] = torch.stack([correct_within(each, labels[scored], 1) for each in logits], dim=1).double()
        by_mean, with_var = hits[name].mean(dim=0).tolist()
        lines.append(f"{name:{width}}  {by_mean:7.2%}  {with_var:13.2%}")
    gained = hits["re-weighted"] - hits["even weights"]
    for place, word in enumerate(("by mean", "with variance")):
        # Both sides are measured on the same images, so the images' difficulty cancels.
        gain = bootstrap(mean, 100 * gained[:, place], seed=options.bprw.seed)
        lines.append(
            f"re-weighted over even weights, {word}: {gain.value:+.2f} points (95 % of resamples: "
            f"{gain.low:+.2f} to {gain.high:+.2f})"
        )
    return [*lines, ""]


def _embed_images(model: Model, options: ReweightOptions) -> Embedded:
    keep = () if options.class_key is None else ("json",)
    with tqdm(desc="images", unit="image", file=sys.stderr) as bar:
        return embed_shards(
            model,
            options.shards,
            batch_size=options.batch_size,
            keep=keep,
            store=options.store,
            on_progress=bar.update,
        )


def _read_lines(source: str, option: str, known: list[str]) -> list[str]:
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{option} is {source!r}: it must be {', '.join(known)} or a text file")
    lines = [line.strip() for line in read_text(path).splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise UserError(f"{option} is {source!r}: the file is empty")
    return found


def _write(options: ReweightOptions, names: list[str], templates: list[str], found: PromptWeights) -> list[str]:
    tensors, chart = options.out / _WEIGHTS, options.out / "prompt_weights.svg"
    notes = {"bprw": dataclasses.asdict(options.bprw), "classnames": names, "templates": templates}
    save_prompt_weights(found, tensors, notes)
    title = f"Weights of {len(templates)} prompts over {len(names)} classes"
    write_atomic(chart, standalone(weight_chart(title, templates, found.weights)))
    slowest, most = int(found.rounds.max()), options.bprw.max_rounds
    lines = [f"{len(names)} classes, at most {slowest} rounds"]
    if slowest == most:
        lines.append(
            f"warning: the weights of {int((found.rounds == most).sum())} classes may still move after {most} rounds: "
            "give more (--max_rounds), or a larger --tolerance"
        )
    return lines
