"""Re-weight prompts by how well they fit the images of a class (`prolip bprw`), and keep the weights in a file.

N images, C classes, K prompts per class, D dimensions.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from prolip.data import expand_shards
from prolip.data.class_names import class_places, listed
from prolip.data.samples import read_label
from prolip.embeddings.embed import embed_shards
from prolip.errors import UserError, check_at_least
from prolip.evaluation.classification import answer, embed_prompts
from prolip.evaluation.config import ReweightOptions
from prolip.evaluation.prompt_templates import (
    imagenet_classnames,
    imagenet_templates,
)
from prolip.gaussian import Gaussian
from prolip.inference.encoder import Encoded
from prolip.inference.load_model import load
from prolip.metrics.bprw import PromptWeights, labelled_images, reweight_prompts
from prolip.metrics.prompts import fill_templates, unweighted_classifiers
from prolip.metrics.statistics import bootstrap, mean
from prolip.report.charts import standalone, weight_chart
from prolip.store.atomic_writes import atomic_file, check_writable, write_atomic
from prolip.store.file_contents import read_text

_WEIGHTS = "prompt_weights.safetensors"
TEMPLATES = {
    "imagenet": lambda: imagenet_templates("all"),
    "simple": lambda: imagenet_templates("simple"),
}
_CLASSNAMES = {"imagenet": imagenet_classnames}


def run_reweight(options: ReweightOptions) -> list[str]:
    """Re-weight the prompts, write the files, and return the lines to print."""
    if options.class_key is None and (options.classnames is None or options.vote == "labelled"):
        raise UserError("class_key", "must be given without classnames, and for labelled votes")
    templates = _named_lines(options.templates, "templates", TEMPLATES)
    fill_templates(templates, [""])
    check_at_least(1, batch_size=options.batch_size)
    check_writable(options.out / _WEIGHTS)
    expand_shards(list(options.shards), options.store)
    names = None if options.classnames is None else _named_lines(options.classnames, "classnames", _CLASSNAMES)
    model = load(options.checkpoint, tokenizer=options.tokenizer, device=options.device)
    with tqdm(desc="images", unit="image", file=sys.stderr) as bar:
        images = embed_shards(
            model,
            options.shards,
            batch_size=options.batch_size,
            keep=() if options.class_key is None else ("json",),
            store=options.store,
            on_progress=bar.update,
        )
    names, labels = find_classes(options.class_key, names, images)
    with tqdm(total=len(names) * len(templates), desc="prompts", unit="prompt", file=sys.stderr) as bar:
        prompts = embed_prompts(model, names, templates, on_progress=bar.update)
    with tqdm(total=len(names), desc="weights", unit="class", file=sys.stderr) as bar:
        found = reweight_prompts(
            prompts.to(model.device),
            images.gaussian.to(model.device),
            options.bprw,
            labels=labels if options.vote == "labelled" else None,
            on_progress=bar.update,
        )
    found = found.to(torch.device("cpu"))
    settings = {"bprw": dataclasses.asdict(options.bprw), "classnames": names, "templates": templates}
    save_prompt_weights(found, options.out / _WEIGHTS, settings)
    title = f"Weights of {len(templates)} prompts over {len(names)} classes"
    write_atomic(options.out / "prompt_weights.svg", standalone(weight_chart(title, templates, found.weights)))
    lines = [*class_lines(names, templates, found.weights, options.show), ""]
    if labels is not None:
        lines += accuracy_lines(prompts, images.gaussian, labels, found, options)
    maximum = options.bprw.max_rounds
    lines.append(f"{len(names)} classes, at most {int(found.rounds.max())} rounds")
    if unfinished := int((found.rounds == maximum).sum()):
        lines.append(
            f"warning: the weights of {unfinished} classes may still move after {maximum} rounds: give more "
            "(--max_rounds), or a larger --tolerance"
        )
    return lines


def _named_lines(source: str, field: str, known: Mapping[str, Callable[[], list[str]]]) -> list[str]:
    if source in known:
        return known[source]()
    path = Path(source)
    lines = [line.strip() for line in read_text(path).splitlines()] if path.is_file() else []
    if not any(lines):
        raise UserError(field, f"must be {', '.join(known)} or a text file with a line for each", source)
    return [line for line in lines if line]


def find_classes(
    class_key: str | None, classnames: list[str] | None, images: Encoded
) -> tuple[list[str], Tensor | None]:
    """C class names, by default the distinct values of `class_key`; and labels from the images' json, i64 [N].

    A value is a name or its index in `classnames`. The labels are None without `class_key`.
    """
    if class_key is None:
        return classnames or [], None
    members = zip(images.keys, images.members["json"], strict=True)
    values = [read_label(key, member, class_key) for key, member in members]
    names = sorted({str(value) for value in values}) if classnames is None else classnames
    labels = class_places(values, names, numbers=classnames is not None)
    if -1 in labels:
        place = labels.index(-1)
        raise UserError(
            "class_key",
            f"must lead to one of the classes {listed(names)}",
            f"{values[place]!r} for {images.keys[place]}",
        )
    return names, torch.tensor(labels)


def class_lines(names: Sequence[str], templates: Sequence[str], weights: Tensor, show: int) -> list[str]:
    """The largest and the smallest weights, [C, K], of each class."""
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
    """Top-1 accuracy of even weights, filters and the new weights, and the gain of the latter.

    Images that voted by their label are not scored.
    """
    scored = torch.ones(len(labels), dtype=torch.bool)
    if options.vote == "labelled":
        voters = labelled_images(labels, len(found.weights), options.bprw.num_neighbors)
        scored[voters[voters >= 0]] = False
    if not bool(scored.any()):
        return ["every image voted: none is left to score", ""]
    images, labels = images.rows(scored), labels[scored]
    classifiers = unweighted_classifiers(prompts, options.filters, (images.mean, labels))
    classifiers["re-weighted"] = found.as_classifier()
    width = max(map(len, classifiers))
    lines = [f"{f'top-1 of {len(labels)} images':{width}}  by mean  with variance"]
    hits: dict[str, Tensor] = {}
    for name, classifier in classifiers.items():
        best, with_var = answer(images, classifier, with_var=True)
        assert with_var is not None
        hits[name] = (torch.stack([best[:, 0], with_var[:, 0]], dim=1) == labels[:, None]).double()
        lines.append("{:{}}  {:7.2%}  {:13.2%}".format(name, width, *hits[name].mean(dim=0).tolist()))
    gained = 100 * (hits["re-weighted"] - hits["even weights"])
    for word, items in zip(("by mean", "with variance"), gained.unbind(1), strict=True):
        gain = bootstrap(mean, items, seed=options.bprw.seed)
        lines.append(
            f"re-weighted over even weights, {word}: {gain.value:+.2f} points (95 % of resamples: "
            f"{gain.low:+.2f} to {gain.high:+.2f})"
        )
    return [*lines, ""]


def save_prompt_weights(found: PromptWeights, path: Path, notes: Mapping[str, object] | None = None) -> None:
    """Write weights to a safetensors file, with `notes` (settings, class names, templates) as JSON in its header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in found._asdict().items()}
    header = {name: json.dumps(note, ensure_ascii=False) for name, note in (notes or {}).items()}
    with atomic_file(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_file(tensors, temporary, header)


def load_prompt_weights(path: Path) -> PromptWeights:
    """Read the weights that `save_prompt_weights` wrote, to the CPU; a UserError for another file."""
    try:
        with safe_open(path, framework="pt") as file:
            return PromptWeights(**{name: file.get_tensor(name) for name in PromptWeights._fields})
    except SafetensorError as error:
        raise UserError(path, f"must be a file of prompt weights ({error})") from error
