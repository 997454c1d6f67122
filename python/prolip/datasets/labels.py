"""Read labels, metadata and captions from images' members. N images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prolip.data import DataError, Members
from prolip.data.samples import CLASS_MEMBER, label_at, values_at
from prolip.datasets.data_set import DataSet
from prolip.inference.encoder import Encoded


class Captions(NamedTuple):
    """With ids, in the order of the images."""

    texts: list[list[str]]
    """Of each image, at least one."""
    image_ids: list[int]
    caption_ids: list[list[int]]


def members_of(data: DataSet, found: Encoded, extension: str) -> list[bytes]:
    """Of every image; DataError if one has none."""
    members = [member for member in found.members[extension] if member is not None]
    if len(members) < len(found.keys):
        key = found.keys[found.members[extension].index(None)]
        raise DataError("must be there", data.source, key, extension)
    return members


def labels_of(
    keys: Sequence[str], members: Members, class_key: str = CLASS_MEMBER, *, source: str | None = None
) -> list[str]:
    """Of every image, by `label_at`; DataError if one has none."""
    labels = []
    for place, key in enumerate(keys):
        label = label_at(key, {name: some[place] for name, some in members.items()}, class_key)
        if label is None:
            raise DataError(f"must have a label at {class_key!r}", source, key)
        labels.append(label)
    return labels


def read_labels(data: DataSet, found: Encoded) -> Tensor:
    """Classes, i64 [N], from `.cls`."""
    labels = labels_of(found.keys, found.members, source=data.source)
    for key, label in zip(found.keys, labels, strict=True):
        if not label.isascii() or not label.isdecimal() or int(label) >= len(data.classnames):
            last = len(data.classnames) - 1
            raise DataError(f"must be a class from 0 to {last} (got {label})", data.source, key, "cls")
    return torch.tensor([*map(int, labels)])


def read_metadata(data: DataSet, found: Encoded, num_columns: int = 1) -> Tensor:
    """i64 [N, M], from `.npy`."""
    try:
        rows = [np.load(io.BytesIO(member), allow_pickle=False) for member in members_of(data, found, "npy")]
        metadata = torch.from_numpy(np.stack(rows).astype(np.int64, casting="same_kind"))
    except (ValueError, EOFError, TypeError) as error:
        raise DataError(f"cannot be read: {error}", data.source, member="npy") from error
    if metadata.ndim != 2 or metadata.shape[1] < num_columns or bool((metadata[:, :num_columns] < 0).any()):
        raise DataError(f"must be vectors of at least {num_columns} whole numbers from 0", data.source, member="npy")
    return metadata


def caption_members(caption_key: str = "txt", *id_keys: str | None) -> tuple[str, ...]:
    """What `read_captions` needs for these keys."""
    in_json = caption_key != "txt" or any(id_keys)
    return (*(("txt",) if caption_key == "txt" else ()), *(("json",) if in_json else ()))


def read_captions(
    data: DataSet,
    found: Encoded,
    caption_key: str = "txt",
    image_id_key: str | None = None,
    caption_ids_key: str | None = None,
) -> Captions:
    """With ids if requested, by the keys of `RetrievalOptions`."""
    members = {
        extension: members_of(data, found, extension)
        for extension in caption_members(caption_key, image_id_key, caption_ids_key)
    }
    captions = Captions([], [], [])
    for place, key in enumerate(found.keys):
        record = members["json"][place] if "json" in members else None
        if caption_key == "txt":
            lines = members["txt"][place].decode("utf-8", "replace").splitlines()
            texts: list[Any] = [line for line in lines if line.strip()]
        else:
            texts = values_at(key, record, caption_key)
        image_ids, caption_ids = (
            [] if path is None else values_at(key, record, path) for path in (image_id_key, caption_ids_key)
        )
        fits = all(isinstance(text, str) for text in texts) and len(texts) > 0
        fits &= all(type(number) is int for number in (*image_ids, *caption_ids))
        if (
            not fits
            or len(image_ids) != (image_id_key is not None)
            or len(caption_ids) != (caption_ids_key is not None) * len(texts)
        ):
            raise DataError("must have captions (texts), and ids if named (numbers)", data.source, key)
        captions.texts.append([text.strip() for text in texts])
        captions.image_ids.extend(image_ids)
        captions.caption_ids.append(caption_ids)
    return captions
