"""Suite `zero_shot`: the user's own images, in one folder per class or in the published layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from prolip.data import StoreConfig
from prolip.data.build.folder import class_text, find_images
from prolip.data.build.images import UNREADABLE, read_for_loader
from prolip.data.build.shards import RECORD
from prolip.embeddings.embed import embed_shards
from prolip.errors import UserError
from prolip.evaluation.caption_sets import name_sources, open_captioned
from prolip.evaluation.classification import accuracy_rows, answer, build_classifier
from prolip.evaluation.config import ZeroShotOptions
from prolip.evaluation.each_set import evaluate_sets
from prolip.evaluation.folders import CLASSNAMES, TaskFolder, digest_of, pack_once, read_labels, read_lines, stamps
from prolip.evaluation.results import SuiteResult, TaskCache, TaskResult
from prolip.gaussian import Gaussian
from prolip.metrics.prompts import fill_templates
from prolip.pretrained.model import Model

TEMPLATES = ("a photo of a {}.",)
"""The prompts of a class if neither the data set nor the user names any."""


def run_zero_shot(model: Model, options: ZeroShotOptions, cache: TaskCache) -> SuiteResult:
    """Classify the images of every data set.

    Raises:
        UserError: none could be evaluated.
    """

    def evaluate(name: str, source: str, fingerprint: str) -> TaskResult:
        made = cache.folder.with_name("data")
        folder = open_classes(source, made, options.store, options.templates, options.classnames)
        lists = [folder.classnames, folder.templates]
        settings = {"model": fingerprint, "data": folder.fingerprint, "lists": lists}
        return cache.get_or_run(name, settings, partial(classify_set, model, name, folder, options.batch_size))

    return evaluate_sets("zero_shot", model, name_sources(options.data), evaluate, "figures with variances")


def classify_set(model: Model, name: str, folder: TaskFolder, batch_size: int) -> TaskResult:
    """Accuracy on a data set.

    Raises:
        DataError: an image has no class, or too many cannot be read.
    """
    classifier = build_classifier(model, folder.classnames, folder.templates)
    images, labels = embed_labelled(model, folder, batch_size)
    found = answer(images, classifier, with_var=model.has_csd)
    return TaskResult(rows=accuracy_rows(name, found, labels))


def embed_labelled(model: Model, folder: TaskFolder, batch_size: int) -> tuple[Gaussian, Tensor]:
    """Embed the images of a data set: Gaussians [N, D] and their classes, i64 [N].

    Raises:
        DataError: an image has no class, or too many cannot be read.
    """
    images = embed_shards(model, folder.shards, batch_size=batch_size, keep=("cls",), store=folder.store)
    return images.gaussian, read_labels(folder, images)


def open_classes(
    source: str, made: Path, store: StoreConfig, templates: Sequence[str], classnames: Path | None = None
) -> TaskFolder:
    """Open a data set, with other class names and templates if any are given.

    Args:
        source: a folder of class folders, or what `open_captioned` opens.
        made: where shards of class folders and remote files are stored.
        store: how shards are read.
        templates: prompts with `{}` for the class; () for the data set's own, or `TEMPLATES`.
        classnames: a file of class names; None for the data set's own.

    Raises:
        UserError: there is no class, or not one name per class; a template has no `{}`; or the shards are made of class
            folders.
        DataError, OSError: a server does not have it, or does not answer.
    """
    path = Path(source)
    published = (
        not path.is_dir() or (path / CLASSNAMES).is_file() or any((*path.glob("*.tar"), *path.glob("test/*.tar")))
    )
    if published and made_of_folder(path if path.is_dir() else path.parent):
        raise UserError(
            f"{source}: shards of `prolip data build` have no class numbers (.cls): name the folder that they were "
            "made from, with one folder of images per class"
        )
    folder = open_captioned(source, made, store) if published else pack_class_folder(path, made)
    if classnames is not None and not classnames.is_file():
        raise UserError(f"classnames is {classnames}: there is no such file")
    names = folder.classnames if classnames is None else read_lines(classnames)
    if not names:
        raise UserError(
            f"{folder.source} has no {CLASSNAMES}: name the classes with --classnames, or a folder with one folder of "
            "images per class with --data"
        )
    if folder.classnames and len(names) != len(folder.classnames):
        raise UserError(f"{classnames} has {len(names)} names: {source} has {len(folder.classnames)} classes")
    if templates:
        fill_templates(templates, names)
    return folder._replace(classnames=names, templates=list(templates) or folder.templates or list(TEMPLATES))


def made_of_folder(shards: Path) -> bool:
    """Whether `prolip data build folder` wrote this folder."""
    try:
        record = json.loads((shards / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("kind") == "folder"


def pack_class_folder(folder: Path, made: Path) -> TaskFolder:
    """A shard of the images in class folders, in the published layout; reused while the files are unchanged.

    Raises:
        UserError: there is no image, one is in no class folder, or one cannot be read; the message names it.
    """
    files = find_images(folder)
    if not files:
        raise UserError(f"{folder} has no image")
    for path in files:
        if path.parent == folder:
            raise UserError(f"{path} is in no class folder: a data set has one folder of images per class")
    classes = sorted({path.relative_to(folder).parts[0] for path in files})

    def sample(path: Path) -> tuple[str, dict[str, bytes]]:
        try:
            image = read_for_loader(path)
        except UNREADABLE as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        label = classes.index(path.relative_to(folder).parts[0])
        return str(path.relative_to(folder)), {image.extension: image.data, "cls": str(label).encode()}

    digest = digest_of(stamps(files, folder))
    shard = pack_once(folder, made, digest, map(sample, files))
    return TaskFolder(str(folder), (shard,), [class_text(name) for name in classes], [], digest)
