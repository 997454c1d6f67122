"""Features of frozen encoders: computed once for a data set, and read from files that are mapped into memory.

N images, U distinct captions, F features of an encoder.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from prolip.data import DataError
from prolip.datasets.data_set import DataSet
from prolip.datasets.labels import caption_members, read_captions, read_labels
from prolip.errors import UserError, check
from prolip.gaussian import Gaussian
from prolip.inference.aligned import image_digest, text_digest
from prolip.inference.encoder import MAX_BAD_FRACTION, Bad, Encoded, Encoder, in_batches
from prolip.metrics.prompts import fill_templates
from prolip.pretrained.encoders import ImageTower, TextTower
from prolip.store.atomic_writes import atomic_file, write_atomic

_BATCH = 128


class Features(NamedTuple):
    """Features of the images and distinct captions of a data set."""

    image: NDArray[Any]
    """f16 [N, F]"""
    text: NDArray[Any]
    """f16 [U, F]"""
    first: NDArray[np.int64]
    """[N + 1]: image n has the captions `ids[first[n] : first[n + 1]]`."""
    ids: NDArray[np.int64]
    group: NDArray[np.int64]
    """[N]: images with the same captions have the same group."""


def read_features(
    data: DataSet, caption_key: str, image: ImageTower, text: TextTower, device: torch.device, folder: Path
) -> Features:
    """The features of a data set, computed unless the folder has them for the same data and encoders.

    Args:
        data: with class names and templates, which make the captions; or with captions.
        caption_key: of the captions, as for `read_captions`.

    Raises:
        DataError: more than one image in a hundred is unreadable, or one has no label or caption.
        UserError: an encoder's features are not finite in half precision.
    """
    by_class = bool(data.classnames)
    content = (data.fingerprint, data.classnames, caption_key, image_digest(image))
    stem = folder / f"image-{hashlib.sha256(repr(content).encode()).hexdigest()[:16]}"
    table = stem.with_suffix(".json")
    if not table.is_file():
        keep = ("cls",) if by_class else caption_members(caption_key)
        encoder = Encoder(
            network=image.network.to(device),
            device=device,
            encode_pixels=lambda pixels: Gaussian.point(image.network(pixels).float()),
            encode_tokens=Gaussian.point,
            preprocess=image.preprocess,
            tokenizer=UserError("tokenizer", "none"),
            keep=keep,
            batch_size=_BATCH,
        )
        places = dict[str, int]()
        rows: list[list[int]] = []

        def pieces() -> Iterator[Tensor]:
            for some in _batches(encoder, data):
                if by_class:
                    rows.extend([label] for label in read_labels(data, some).tolist())
                else:
                    texts = read_captions(data, some, caption_key).texts
                    rows.extend([places.setdefault(text, len(places)) for text in row] for row in texts)
                yield some.gaussian.mean

        dim = _write(stem, pieces(), "images", None, data.source)
        captions = data.classnames if by_class else [*places]
        write_atomic(table, json.dumps({"dim": dim, "rows": rows, "captions": captions}))
    known = json.loads(table.read_text())
    rows, captions = known["rows"], known["captions"]
    check(len(rows) >= 4, "data", "must have at least four images", data.source)
    if by_class:
        filled = fill_templates(data.templates, captions)
        captions = [caption for of_class in filled for caption in of_class]
        count = len(data.templates)
        rows = [[*range(label * count, (label + 1) * count)] for (label,) in rows]
    texts = _texts(captions, text, device, folder)
    groups: dict[tuple[int, ...], int] = {}
    group = [groups.setdefault(tuple(sorted(row)), len(groups)) for row in rows]
    first = np.cumsum([0, *map(len, rows)])
    ids = np.fromiter((place for row in rows for place in row), np.int64, int(first[-1]))
    return Features(_mapped(stem, known["dim"]), texts, first, ids, np.array(group))


def _batches(encoder: Encoder, data: DataSet) -> Iterator[Encoded]:
    if data.samples is None:
        yield from encoder.of_shards(data.shards, store=data.store, selection=data.selection)
        return
    good, bad = 0, list[Bad]()
    for rows in encoder.of_samples(in_batches(data.samples(), encoder.batch_size)):
        good, bad = good + len(rows.keys), [*bad, *rows.bad]
        if rows.keys:
            yield rows
    if len(bad) > MAX_BAD_FRACTION * (good + len(bad)):
        raise DataError(f"{len(bad)} of {good + len(bad)} images are unreadable: {bad[0].error}", data.source)


def _texts(captions: list[str], tower: TextTower, device: torch.device, folder: Path) -> NDArray[Any]:
    stem = folder / f"text-{hashlib.sha256(repr((captions, text_digest(tower))).encode()).hexdigest()[:16]}"
    table = stem.with_suffix(".json")
    if not table.is_file():
        network: nn.Module = tower.network.to(device)

        def encode(some: list[str]) -> Tensor:
            found: Tensor = network(tower.tokenize(some).to(device))
            return found.float().cpu()

        dim = _write(stem, map(encode, in_batches(captions, _BATCH)), "captions", len(captions), "texts")
        write_atomic(table, json.dumps({"dim": dim}))
    return _mapped(stem, json.loads(table.read_text())["dim"])


def _write(path: Path, pieces: Iterator[Tensor], what: str, total: int | None, source: str) -> int:
    """Write rows in half precision; returns their dimension."""
    dim = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    bar = tqdm(desc=what, total=total, unit=what.removesuffix("s"), file=sys.stderr, disable=None)
    with torch.no_grad(), atomic_file(path) as temporary, temporary.open("wb") as file, bar:
        for piece in pieces:
            half = piece.half()
            if half.ndim != 2 or not bool(half.isfinite().all()):
                raise UserError(source, "its features must be finite rows in half precision", list(half.shape))
            dim = half.shape[1]
            file.write(half.numpy().tobytes())
            bar.update(len(half))
    check(dim, "data", "must have an image", source)
    return dim


def _mapped(path: Path, dim: int) -> NDArray[Any]:
    return np.memmap(path, np.float16, "r").reshape(-1, dim)
