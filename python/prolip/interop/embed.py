"""`Embed`: embeds columns of images and captions inside Ray Data, Daft, Spark and other engines.

N rows, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.inference.encoder import Sample, in_batches, joined
from prolip.inference.load_model import load
from prolip.models.config import Precision

_loaded = cache(load)
"""Once per process, even if its engine sends an `Embed` with each task."""


@dataclass(frozen=True)
class Embed:
    """A callable that embeds a batch of rows. It holds settings only, so engines can pickle it and send it to workers.

    A process loads the model at its first batch. Columns are arrays, lists, or have `to_pylist`. A batch has one of
    these, or captions and one of the others; then the names of the captions' results begin with `text_`:

    - `bytes`: encoded images,
    - `image`: paths, or anything else that `Model.encode_images` takes as one image,
    - `text`: captions.
    """

    checkpoint: str
    """As for `prolip.load`."""
    precision: Precision = "fp32"
    """Of the towers."""
    batch_size: int = 128
    """Images or captions per forward pass."""
    log_var: bool = False
    """Whether to return log variances."""
    device: str = "auto"
    """As for `prolip.load`."""
    threads: int = 0
    """Threads that decode; 0 for this process's share of the cores."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of the batch without `bytes`, and the results.

        - `mean`: f32 [N, D].
        - `total_var`: f32 [N], the uncertainty.
        - `log_var`: f32 [N, D], if asked for.
        - `error`: N texts, empty or why the row cannot be embedded. The numbers of such a row are NaN.

        Raises:
            UserError: columns or settings are wrong, or as for `prolip.load`.
        """
        kinds = [name for name in ("bytes", "image", "text") if name in batch]
        if not kinds or kinds[:2] == ["bytes", "image"]:
            raise UserError("batch", "must have bytes, image or text, and not the first two", ", ".join(batch))
        model = _loaded(self.checkpoint, device=self.device, precision=self.precision)
        encoder = replace(model.encoder, batch_size=self.batch_size, threads=self.threads)
        found = {name: column for name, column in batch.items() if name != "bytes"}
        for kind in kinds:
            column = batch[kind]
            rows = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
            errors = [""] * len(rows)
            if kind == "text":
                places = [place for place, row in enumerate(rows) if isinstance(row, str)]
                for place in {*range(len(rows))}.difference(places):
                    errors[place] = f"must be a text (got a {type(rows[place]).__name__})"
                gaussian = joined(encoder.of_captions([rows[place] for place in places])).text
            else:
                samples = (Sample(str(place), place, row) for place, row in enumerate(rows))
                encoded = joined(encoder.of_samples(in_batches(samples, self.batch_size)))
                for bad in encoded.bad:
                    errors[bad.place] = str(bad.error)
                places, gaussian = encoded.places, encoded.images.get("image")
            if gaussian is None:
                gaussian = Gaussian.point(torch.zeros(0, model.embed_dim))
            prefix = "text_" if kind != kinds[0] else ""
            found[f"{prefix}error"] = np.array(errors, object)
            for name in ("mean", "total_var", *["log_var"] * self.log_var):
                values = getattr(gaussian.flatten(), name).numpy()
                numbers = np.full((len(rows), *values.shape[1:]), np.nan, np.float32)
                numbers[places] = values
                found[prefix + name] = numbers
        return found
