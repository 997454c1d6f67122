"""Images with their right labels, embedded: from a data set in the published layout, or from class folders.

N images, C labels, K templates, D dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.data.build.folder import class_text, find_images
from prolip.embeddings.embed import embed_shards
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.pretrained.model import Model
from prolip.suites.caption_sets import open_captioned
from prolip.suites.folders import CLASSNAMES, TaskFolder, read_labels, stamps

PLAIN = ("{}",)
"""Templates of class folders, which name none."""


class LabelledSet(NamedTuple):
    """Where labelled images are, not embedded yet."""

    source: str
    labels: list[str]
    """C labels."""
    templates: list[str]
    """K prompts, with `{}` for the label."""
    fingerprint: str
    """Digest of labels and templates, and of the files' names, sizes and modification times."""
    folder: TaskFolder | None
    """A data set in the published layout; None for class folders."""
    files: dict[Path, int]
    """Of class folders, the images with their labels."""


def open_labelled(source: str, templates: Sequence[str], fetched: Path) -> LabelledSet:
    """Open labelled images.

    Args:
        source: a data set in the published layout (path, http(s) address, or `hf://datasets/OWNER/NAME`); or a folder
            with one folder of images per label, named like the label.
        templates: prompts with `{}` for the label; () for the data set's own, or the label alone.
        fetched: where the files of remote data sets are stored.

    Raises:
        UserError: there is no image, no label or no template; the message names the source.
        DataError, OSError: a server does not have it, or does not answer.
    """
    path = Path(source)
    if path.is_dir() and not (path / CLASSNAMES).is_file():
        return _open_class_folders(path, templates)
    folder = open_captioned(source, fetched)
    named = [template.replace("{c}", "{}") for template in (templates or folder.templates)]
    if not folder.classnames or not named:
        raise UserError(f"{source} has no class names or no templates")
    digest = hashlib.sha256(repr((folder.fingerprint, named)).encode()).hexdigest()[:32]
    return LabelledSet(folder.source, folder.classnames, named, digest, folder, {})


def _open_class_folders(path: Path, templates: Sequence[str]) -> LabelledSet:
    images = find_images(path)
    names = sorted({image.relative_to(path).parts[0] for image in images if image.parent != path})
    labels = [class_text(name) for name in names]
    loose = [image for image in images if image.parent == path]
    if not names or loose:
        what = f"{loose[0].name} is in none" if loose else "there is no image in one"
        raise UserError(f"{path}: each image must be in a folder named like its label: {what}")
    if len(set(labels)) < len(labels):
        raise UserError(f"{path}: two folders have the same label in words: {', '.join(labels)}")
    places = {image: names.index(image.relative_to(path).parts[0]) for image in images}
    named = list(templates or PLAIN)
    digest = hashlib.sha256(repr((stamps(images), list(places.values()), labels, named)).encode()).hexdigest()[:32]
    return LabelledSet(str(path), labels, named, digest, None, places)


def embed_labelled(model: Model, found: LabelledSet, batch_size: int) -> tuple[Gaussian, Tensor]:
    """Embed the images: Gaussians [N, D] and their labels, i64 [N].

    Raises:
        DataError: an image has no label, or too many cannot be read; of class folders, one cannot be read.
    """
    if found.folder is None:
        images = model.encode_images(list(found.files), batch_size=batch_size, progress=False)
        return images, torch.tensor(list(found.files.values()))
    embedded = embed_shards(model, found.folder.shards, batch_size=batch_size, keep=("cls",))
    return embedded.gaussian, read_labels(found.folder, embedded)
