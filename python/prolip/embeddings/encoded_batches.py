"""Batches for models other than ProLIP's: the loader reads; the model's own preprocessing and tokenizer do the rest.

B batch, H/W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.data import Batch, DataError, LoaderConfig
from prolip.data.samples import EXTENSIONS, read_record, values_at
from prolip.embeddings.config import EmbedOptions
from prolip.embeddings.input_parts import Reading
from prolip.gaussian import Gaussian
from prolip.pretrained.forward import on_cpu
from prolip.pretrained.image_batches import decoded_ahead, encoded_image
from prolip.pretrained.model import Model


def reading_config(options: EmbedOptions) -> LoaderConfig:
    """Return loader settings that keep the encoded images and the members with captions."""
    beside = () if options.what == "image" else ("txt",) if options.caption_key == "txt" else ("json",)
    return LoaderConfig(
        shards=(),
        batch_size=options.batch_size,
        image_size=0,
        captions=(),
        keep_members=(*EXTENSIONS, *beside),
        num_threads=options.threads,
        store=options.store,
    )


class _Decoded(NamedTuple):
    """A sample, ready for the model."""

    pixels: Tensor | None
    """f32 [3, H, W]; None if images are not embedded."""
    caption: str | None


class _Sample(NamedTuple):
    """A sample that is being decoded."""

    place: int
    """Index of its part in the reading."""
    key: str
    batch: Batch
    row: int


class EncodedBatches:
    """Iterates over keys and Gaussians, batch by batch; only once."""

    def __init__(self, model: Model, reading: Reading, options: EmbedOptions) -> None:
        self._model, self._reading, self._options = model, reading, options
        self._image, self._text = options.what != "text", options.what != "image"
        self.wait_seconds = 0.0
        """Time in which the model waited for data."""

    def __iter__(self) -> Iterator[tuple[list[str], dict[str, Gaussian]]]:
        """Yield the keys of a batch's usable samples, and their Gaussians on the CPU; a batch may have none."""
        begun = time.perf_counter()
        for decoded in decoded_ahead(self._samples(), self._decode, self._options.threads):
            for sample, found in decoded:
                if isinstance(found, str):
                    self._reading.lost[sample.place].append(f"{sample.key}: {found}")
            self.wait_seconds += time.perf_counter() - begun
            keys = [sample.key for sample, found in decoded if isinstance(found, _Decoded)]
            yield keys, self._embed([found for _, found in decoded if isinstance(found, _Decoded)])
            begun = time.perf_counter()

    def _samples(self) -> Iterator[list[_Sample]]:
        for batch in self._reading:
            place = self._reading.places[-1]
            yield [_Sample(place, key, batch, row) for row, key in enumerate(batch.keys)]

    def _embed(self, samples: Sequence[_Decoded]) -> dict[str, Gaussian]:
        found: dict[str, Gaussian] = {}
        if not samples:
            return found
        with self._model.running():
            if self._image:
                pixels = torch.stack([sample.pixels for sample in samples if sample.pixels is not None])
                found["image"] = on_cpu(self._model.encode_pixels(pixels.to(self._model.device)))
            if self._text:
                captions = [sample.caption for sample in samples if sample.caption is not None]
                found["text"] = on_cpu(self._model.encode_captions(captions))
        return found

    def _decode(self, sample: _Sample) -> _Decoded | str:
        """Return a decoded sample, or the reason why it cannot be used."""
        try:
            caption = self._caption(sample.key, sample.batch, sample.row) if self._text else None
            if not self._image:
                return _Decoded(None, caption)
            return _Decoded(self._model.preprocess(encoded_image(sample.batch, sample.row)), caption)
        except DataError as error:
            return str(error)

    def _caption(self, key: str, batch: Batch, row: int) -> str:
        """Return the sample's caption, the first if there are several.

        Raises:
            DataError: it has none.
        """
        path = self._options.caption_key
        if path == "txt":
            data = batch.members["txt"][row]
            if data is None:
                raise DataError("it has no txt")
            try:
                return data.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise DataError(f"its txt is not UTF-8: {error}") from error
        texts = values_at(read_record(key, batch.members["json"][row]), path)
        caption = next((text for text in texts if isinstance(text, str)), None)
        if caption is None:
            raise DataError(f"its json has no text at {path!r}")
        return caption.strip()
