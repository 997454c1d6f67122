"""Evaluate folders of `prolip import` without a model: texts are looked up in a folder of their embeddings.

N rows, D dimensions.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prolip.checkpoint.state import NOTES
from prolip.data.config import StoreConfig
from prolip.datasets.data_set import DataSet, open_dataset
from prolip.embeddings.config import Kind
from prolip.embeddings.storage import MANIFEST, Manifest, complete_parts, part_name
from prolip.errors import UserError, check
from prolip.gaussian import Gaussian, concatenate
from prolip.images.preprocess import Preprocess
from prolip.inference.encoder import Encoded, Encoder
from prolip.inference.load_model import calibrated, load, read_calibration
from prolip.inference.model import Model, weights_digest
from prolip.models.config import Device, Precision
from prolip.pretrained.sources import resolve
from prolip.store.folder import Folder


class StoredTexts(nn.Module):
    """Embeddings in place of a network."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        manifest, texts = _read(folder, "text")
        self.made_by = manifest.weights
        """Digest of their model's tensors; empty if unknown."""
        self.has_variances = manifest.has_variances
        self.logit_scale = nn.Parameter(torch.tensor(manifest.logit_scale).log())
        self.logit_bias = None if manifest.logit_bias is None else nn.Parameter(torch.tensor(manifest.logit_bias))
        self.register_buffer("mean", texts.mean)
        self.register_buffer("log_var", texts.log_var)
        self.places = {text: place for place, text in reversed([*enumerate(_texts(_names(folder, manifest)))])}
        self.width = 1 + max(len(text.encode()) for text in self.places)
        self.source = folder.address

    def extra_repr(self) -> str:
        """Their digest, for the model's fingerprint."""
        return hashlib.sha256(repr(self.places).encode()).hexdigest()

    def as_bytes(self, texts: list[str]) -> Tensor:
        """i64 [N, L], filled with zeros; white space is one space. What is longer than any is cut."""
        rows = [torch.tensor([*_spaced(text).encode()[: self.width]], dtype=torch.long) for text in texts]
        return nn.utils.rnn.pad_sequence([torch.zeros(self.width).long(), *rows], batch_first=True)[1:]

    def encode_text(self, ids: Tensor) -> Gaussian:
        """Gaussians [B, D] of texts from `as_bytes`; a UserError names an unknown one."""
        texts = [bytes(row[row > 0].tolist()).decode(errors="replace") for row in ids]
        for text in texts:
            check(text in self.places, "text", f"must be a key or caption of {self.source}: there is no model", text)
        rows = torch.tensor([self.places[text] for text in texts], device=self.get_buffer("mean").device)
        return Gaussian(self.get_buffer("mean"), self.get_buffer("log_var")).rows(rows)

    def encode_image(self, _: object) -> NoReturn:
        """Always a UserError."""
        raise UserError("checkpoint", "must be a model, to embed images, and not embeddings", self.source)


def is_stored(source: str) -> bool:
    """A folder of embeddings; a checkpoint has a manifest, too, and a run's state."""
    return (Path(source) / MANIFEST).is_file() and not (Path(source) / NOTES).exists()


def open_model(
    source: str,
    *,
    tokenizer: str | None = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    calibration: Path | None = None,
) -> Model:
    """As `prolip.load`; a folder of text embeddings becomes a model that knows these texts."""
    if not is_stored(source):
        return load(source, tokenizer=tokenizer, device=device, precision=precision, calibration=calibration)
    texts = StoredTexts(Folder(source))
    encoder = Encoder(
        network=texts,
        device=torch.device("cpu"),
        encode_pixels=texts.encode_image,
        encode_tokens=texts.encode_text,
        preprocess=Preprocess(),
        tokenizer=texts.as_bytes,
    )
    model = Model(name=source, encoder=encoder, has_variances=texts.has_variances)
    return calibrated(
        model, resolve(source), calibration, None if calibration is None else read_calibration(calibration)
    )


def open_data(source: str, store: StoreConfig | None = None, selection: str | None = None) -> DataSet:
    """As `open_dataset`; a folder of image embeddings is a data set with the captions and labels of its metadata."""
    if not is_stored(source):
        return open_dataset(source, store, selection)
    check(selection is None, "selection", "must be of shards", source)
    folder = Folder(source)
    manifest, images = _read(folder, "image")
    names = _names(folder, manifest)
    keys, labels = [str(row["key"]) for row in names], [str(row.get("label")) for row in names]
    numbered = all(label.isascii() and label.isdecimal() for label in labels)
    classes = [*map(str, range(max(map(int, labels)) + 1))] if numbered else sorted(set(labels))
    known, place = "label" in names[0], {name: place for place, name in enumerate(classes)}
    members: dict[str, list[bytes | None]] = {
        "txt": [text.encode() for text in _texts(names)],
        "cls": [str(place[label]).encode() if known else None for label in labels],
    }
    rows = Encoded(keys, [*range(len(keys))], [(0, 0)] * len(keys), members, images={"image": images})
    digest = hashlib.sha256(repr(names).encode())
    for tensor in images:
        digest.update(tensor.numpy().tobytes())

    def encoded(model: Model) -> Encoded:
        check_maker(manifest, model, "data", source)
        return rows

    sources = tuple(folder.at(_names_file(number)) for number in range(len(manifest.plan)))
    return DataSet(source, sources, classes if known else [], ["{}"], digest.hexdigest()[:32], encoded=encoded)


def check_maker(manifest: Manifest, model: Model, field: str, source: str) -> None:
    """Check that a model, or what made its stored texts, made these embeddings."""
    network = model.network
    known = isinstance(network, StoredTexts)
    made = network.made_by if isinstance(network, StoredTexts) else weights_digest(network)
    fits = manifest.weights == made and (not known or network.get_buffer("mean").shape[1] == manifest.dim)
    check(fits, field, f"must be embeddings of the model of {model.name}", source)


def _read(folder: Folder, kind: Kind) -> tuple[Manifest, Gaussian]:
    manifest = Manifest.read(folder)
    variances = manifest.has_variances
    parts = complete_parts(folder, kind, log_var=variances)[1]
    blocks = [block for part in parts for block in part.blocks(log_var=variances)]
    means = [F.normalize(torch.from_numpy(np.array(block.mean)), dim=1) for block in blocks]
    return manifest, concatenate(
        [
            Gaussian.point(mean) if block.log_var is None else Gaussian(mean, torch.from_numpy(np.array(block.log_var)))
            for mean, block in zip(means, blocks, strict=True)
        ]
    )


def _names_file(number: int) -> str:
    return part_name("image", number).replace("image", "names")


def _names(folder: Folder, manifest: Manifest) -> list[dict[str, Any]]:
    try:
        return [
            row
            for number in range(len(manifest.plan))
            for row in pq.read_table(folder.open(_names_file(number))).to_pylist()
        ]
    except FileNotFoundError as error:
        raise UserError(folder.address, "must be a folder of `prolip import`; name the model, and shards") from error


def _texts(names: list[dict[str, Any]]) -> list[str]:
    return [_spaced(row.get("caption") or row["key"]) for row in names]


def _spaced(text: str) -> str:
    return " ".join(text.split())
