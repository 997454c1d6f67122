"""`Embed`: embeds columns of images and captions inside Ray Data, Daft, Spark and other engines.

N rows, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from prolip.data import DataError
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.inference.image_batches import decoded_ahead
from prolip.inference.load_model import load
from prolip.inference.model import Model
from prolip.models.config import Precision

_loaded = cache(load)
"""A process loads a model once, also if its engine sends an `Embed` with each task."""


@dataclass(frozen=True)
class Embed:
    """A callable that embeds a batch of rows. It holds settings only, so engines can pickle it and send it to workers.

    A process loads the model when it gets its first batch. Columns are arrays, lists, or have `to_pylist`. A batch has
    one of these, or captions and one of the others; then the names of the captions' results begin with `text_`:

    - `bytes`: encoded images,
    - `image`: paths, or anything else that `Model.encode_images` takes as one image,
    - `text`: captions.
    """

    checkpoint: str
    """The model, as for `prolip.load`."""
    precision: Precision = "fp32"
    """Precision of the towers."""
    batch_size: int = 128
    """Images or captions per forward pass."""
    log_var: bool = False
    """Whether to return log variances."""
    device: str = "auto"
    """Where the model runs, as for `prolip.load`."""
    threads: int = 0
    """Threads that decode; 0 for this process's share of the cores."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of the batch without `bytes`, and the results.

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
        found = {name: column for name, column in batch.items() if name != "bytes"}
        for kind in kinds:
            column = batch[kind]
            rows = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
            # An empty batch has D, too.
            gaussian, errors = (self._captions if kind == "text" else self._images)(model, rows or [None])
            prefix = "text_" if kind != kinds[0] else ""
            found[f"{prefix}error"] = np.array(errors, object)[: len(rows)]
            for name in ("mean", "total_var", *["log_var"] * self.log_var):
                numbers = getattr(gaussian, name).numpy()
                numbers[np.array(errors) != ""] = np.nan
                found[prefix + name] = numbers[: len(rows)]
        return found

    def _images(self, model: Model, rows: list[Any]) -> tuple[Gaussian, list[str]]:
        errors = [""] * len(rows)

        def prepare(row: int) -> Tensor:
            try:
                return model.preprocess(rows[row])
            except (ValueError, DataError) as error:  # UserError is a ValueError, and so is a path with a null byte
                errors[row] = str(error)
                return model.preprocess(np.zeros((8, 8), np.uint8))

        every = range(len(rows))
        batches = (every[start : start + self.batch_size] for start in every[:: self.batch_size])
        prepared = (image for some in decoded_ahead(batches, prepare, self.threads) for _, image in some)
        return model.encode_images(prepared, batch_size=self.batch_size, progress=False), errors

    def _captions(self, model: Model, rows: list[Any]) -> tuple[Gaussian, list[str]]:
        errors = ["" if isinstance(row, str) else f"must be a text (got a {type(row).__name__})" for row in rows]
        texts = [row if isinstance(row, str) else "" for row in rows]
        return model.encode_texts(texts, batch_size=self.batch_size, progress=False), errors
