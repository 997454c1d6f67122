"""The module of sentence-transformers that encodes with a ProLIP model. Each exported folder has a copy.

So this file does not import prolip. An embedding is [mean, total variance] of a Gaussian; that of a query is [mean,
-1/2], so that its inner product with the others orders them by CSD.

N/M items, D dimension of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modality import infer_batch_modality
from sentence_transformers.base.modules import InputModule
from torch import Tensor
from transformers import AutoModel, AutoProcessor

Embeddings = np.ndarray | Tensor | Sequence[Any]


def csd_similarity(a: Embeddings, b: Embeddings) -> Tensor:
    """1 - csd / 2 between all embeddings, [N, M]. A query's variance is left out: it changes no order."""
    first, second = (_rows(side) for side in (a, b))
    spread = _total_var(first)[:, None] + _total_var(second)
    return first[:, :-1] @ second[:, :-1].T - 0.5 * spread


def pairwise_csd_similarity(a: Embeddings, b: Embeddings) -> Tensor:
    """1 - csd / 2 of embeddings at the same index, [N]."""
    first, second = (_rows(side) for side in (a, b))
    return (first[:, :-1] * second[:, :-1]).sum(-1) - 0.5 * (_total_var(first) + _total_var(second))


def _rows(embeddings: Embeddings) -> Tensor:
    if not isinstance(embeddings, Tensor | np.ndarray):
        embeddings = torch.stack([torch.as_tensor(row) for row in embeddings])
    rows = torch.as_tensor(embeddings).float()
    return rows if rows.ndim == 2 else rows[None]


def _total_var(rows: Tensor) -> Tensor:
    """0 for a query, whose last number is -1/2."""
    return rows[:, -1].clamp_min(0.0)


class ProLIPEncoder(InputModule):
    """Encodes images and texts as [mean, total variance], and those that are queries as [mean, -1/2]."""

    forward_kwargs = {"task"}  # noqa: RUF012 - the base class declares it so

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer

    @property
    def modalities(self) -> list[Any]:
        """Of `encode`: captions, or images (PIL images, paths)."""
        return ["text", "image"]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_unused: Any) -> dict[str, Any]:
        """The model's inputs for texts or images."""
        modality = infer_batch_modality(inputs, supported_modalities=self.modalities)
        items = [item[modality] if isinstance(item, dict) else item for item in inputs]
        if modality == "text":
            return dict(self.processor(text=[(prompt or "") + caption for caption in items], return_tensors="pt"))
        return dict(self.processor(images=items, return_tensors="pt"))

    def forward(self, features: dict[str, Any], task: str | None = None, **_unused: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, [N, D + 1], and the Gaussians' `mean` and `log_var`, [N, D]."""
        output = self.model(**features)
        mean, log_var = output.last_hidden_state.float().unbind(1)
        last = torch.full_like(mean[:, :1], -0.5) if task == "query" else log_var.exp().sum(-1, keepdim=True)
        return {**features, "mean": mean, "log_var": log_var, "sentence_embedding": torch.cat([mean, last], 1)}

    def get_embedding_dimension(self) -> int:
        """D + 1."""
        return int(self.model.config.embed_dim) + 1

    def on_model_ready(self, model: Any) -> None:
        """Make CSD the similarity of the whole model."""
        model.similarity = csd_similarity
        model.similarity_pairwise = pairwise_csd_similarity

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        *,
        cache_folder: str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        **further: Any,
    ) -> ProLIPEncoder:
        """From a folder or from the hub.

        Raises:
            ValueError: the backend is not torch.
        """
        if backend != "torch":
            raise ValueError(f"backend: a ProLIP model runs in torch here (got {backend!r})")
        names = ("token", "revision", "local_files_only", "trust_remote_code")
        where = {name: further[name] for name in names if name in further} | {"cache_dir": cache_folder}
        model = AutoModel.from_pretrained(model_name_or_path, **where, **(config_kwargs or {}), **(model_kwargs or {}))
        return cls(model, AutoProcessor.from_pretrained(model_name_or_path, **where, **(processor_kwargs or {})))

    def save(self, output_path: str, *_args: Any, **_unused: Any) -> None:
        """With its processor."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)
