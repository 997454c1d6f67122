"""Validation during training, without any effect on it: every rank embeds its share of a set, and rank 0 measures.

N images of a set, C caption slots, L tokens, D embedding.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Self, get_args

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from prolip.data import BatchLoader, CaptionConfig, CaptionSource, DataError, LoaderConfig
from prolip.data.class_names import class_places, listed
from prolip.data.tokenizer import Tokenizer
from prolip.datasets.labels import labels_of
from prolip.distributed import Ranks
from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.inference.encoder import Encoder, joined
from prolip.metrics.config import Score
from prolip.metrics.prompts import encode_prompts
from prolip.metrics.retrieval import evaluate_retrieval, first_ranks
from prolip.metrics.statistics import spearman
from prolip.metrics.uncertainty import area_under_risk_coverage, uncertainty_bins
from prolip.metrics.zero_shot import aggregate_prompts, measure_zero_shot
from prolip.models import ProLIP
from prolip.store.file_contents import read_text
from prolip.train.config.validation import CLASS_MEMBER, ValidationConfig, ValidationJob

_NUM_BINS = 10


class Validation:
    """Opens the validation sets once, and evaluates them. A context manager; every rank has one.

    Args:
        training: the training loader's settings, for image size, tokenizer, threads and store.
        precision: the context of every forward pass.
        seq_len: maximum patches of a native image.

    Raises:
        UserError: class names or the first samples' labels cannot be read.
        DataError: a shard or too many of its first samples cannot be read.
    """

    def __init__(
        self,
        config: ValidationConfig,
        training: LoaderConfig,
        ranks: Ranks,
        precision: Callable[[], AbstractContextManager[object]],
        seq_len: int | None = None,
    ) -> None:
        self._ranks, self._precision = ranks, precision
        if config.jobs:
            self._tokenizer = Tokenizer(training.tokenizer)
        self._jobs: list[tuple[ValidationJob, BatchLoader]] = []
        self._classes: dict[str, list[str]] = {}
        for place, job in enumerate(config.jobs):
            with _naming(place):
                loader = BatchLoader(
                    _loader_config(job, training, seq_len), rank=ranks.rank, world_size=ranks.world_size
                )
                self._jobs.append((job, loader))
                first = next(iter(loader), None)  # better now than after many steps
                if first is not None and job.kind == "zero_shot":
                    labels_of(first.keys, first.members, job.class_key)
                text = read_text(job.classnames) if job.classnames is not None and job.kind == "zero_shot" else ""
                self._classes[job.name] = [line.strip() for line in text.splitlines() if line.strip()]

    def is_due(self, step: int, *, done: bool) -> bool:
        """After `step` steps; all sets are when the run is `done`."""
        return any(done or step % job.every == 0 for job, _ in self._jobs)

    def run(self, step: int, model: ProLIP, *, done: bool) -> dict[str, float]:
        """Evaluate the sets that are due after `step` steps, with a model from `whole_model`. All ranks call this.

        The metrics are the same on every rank, but for `seconds`; NaN where undefined.

        Raises:
            DataError: an image has no label, or an unknown one.
        """
        metrics: dict[str, float] = {}
        with torch.random.fork_rng([self._ranks.device] if self._ranks.device.type == "cuda" else []):
            for place, (job, loader) in enumerate(self._jobs):
                if not done and step % job.every:
                    continue
                started = time.perf_counter()
                with _naming(place):
                    measured = self._evaluate(job, loader, model) | {"seconds": time.perf_counter() - started}
                metrics |= {f"val/{job.name}/{name}": value for name, value in measured.items()}
        return metrics

    def _evaluate(self, job: ValidationJob, loader: BatchLoader, model: ProLIP) -> dict[str, float]:
        encoder = dataclasses.replace(
            Encoder.of_prolip(model, self._tokenizer, self._ranks.device),
            caption_keys=() if job.kind == "zero_shot" else job.captions,
        )
        with self._precision():
            local = joined(encoder.of_loader(loader))
        labels = labels_of(local.keys, local.members, job.class_key) if job.kind == "zero_shot" else []
        of_ranks = self._ranks.gather((local._replace(members={}), labels))
        result: dict[str, float] = {}
        if self._ranks.rank == 0:
            # In rank order, which is the shards'.
            rows = joined(of_rank for of_rank, _ in of_ranks)
            if not rows.keys:
                raise DataError("a validation set has no image")
            images = rows.gaussian
            if job.kind == "zero_shot":
                labels = [label for _, of_rank in of_ranks for label in of_rank]
                names = self._classes[job.name] or sorted(set(labels))
                with self._precision():
                    classifier = aggregate_prompts(encode_prompts(job.templates, names, encoder.embed_captions))
                targets, scale = _targets(job, rows.keys, labels, names), float(model.logit_scale.detach().exp())
                bins = min(_NUM_BINS, len(targets))
                result = measure_zero_shot(images, classifier, targets, bins, logit_scale=scale)
            else:
                assert rows.text is not None
                assert rows.token_ids is not None
                texts = rows.text.flatten()
                if job.kind == "retrieval":
                    result = _retrieval(images, texts, rows.token_ids)
                else:
                    result = _uncertainty(images, texts, rows.token_ids, self._tokenizer.pad_id)
        return self._ranks.broadcast(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for _, loader in self._jobs:
            loader.close()


def whole_model(model: ProLIP, average: Mapping[str, Tensor] | None = None, *, copied: bool = False) -> ProLIP:
    """A model with whole tensors, which each rank can run alone. All ranks call this.

    Args:
        model: the trained model, whose parameters may be sharded.
        average: other values of the parameters by name.
        copied: copy the model even if its tensors are whole, for example because it is compiled.
    """
    # FSDP keeps a tower without gradients gathered. `state_dict` returns its shards, and frees the rest.
    values = model.state_dict() | dict(average or {})
    if not copied and average is None and not any(isinstance(value, DTensor) for value in values.values()):
        return model
    device = next(iter(values.values())).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        copy = ProLIP(model.config)
    with torch.no_grad():
        for name, target in copy.state_dict().items():
            value = values[name].detach()
            target.copy_(value.full_tensor() if isinstance(value, DTensor) else value)
    return copy


@contextmanager
def _naming(place: int) -> Iterator[None]:
    """In errors of a set: the loader names its own fields."""
    try:
        yield
    except UserError as error:
        raise error.within(f"validation.jobs.{place}.") from error
    except DataError as error:
        raise error.within(f"validation.jobs.{place}") from error


# ---- Samples and labels ---------------------------------------------------------------------------------------------


def _loader_config(job: ValidationJob, training: LoaderConfig, seq_len: int | None) -> LoaderConfig:
    captions = () if job.kind == "zero_shot" else job.captions
    return LoaderConfig(
        shards=job.shards,
        batch_size=job.batch_size,
        image_size=training.image_size,
        fit=training.fit,
        native=training.native and training.native.of_one_length(seq_len or 1, job.batch_size),
        captions=tuple(CaptionConfig(sources=(CaptionSource(key=key),)) for key in captions),
        tokenizer=training.tokenizer,
        shuffle_window=0,
        last_batch="keep",
        num_threads=training.num_threads,
        store=training.store,
        keep_members=(CLASS_MEMBER if job.class_key == CLASS_MEMBER else "json",) if job.kind == "zero_shot" else (),
    )


def _targets(job: ValidationJob, keys: Sequence[str], labels: Sequence[str], names: Sequence[str]) -> Tensor:
    """Class indices, i64 [N]: by name, or with a file of names also by number from 0."""
    places = class_places(labels, names, numbers=job.classnames is not None)
    for key, label, place in zip(keys, labels, places, strict=True):
        if place < 0:
            raise DataError(
                f"its label must be one of the classes of {job.classnames}, {listed(names)} (got {label})", key=key
            )
    return torch.tensor(places)


# ---- Metrics --------------------------------------------------------------------------------------------------------


def _correct(token_ids: Tensor) -> Tensor:
    """Bool [N, C * N]: each image's own captions and equal ones."""
    slots, items, length = token_ids.shape
    _, same = torch.unique(token_ids.reshape(-1, length), dim=0, return_inverse=True)
    correct = torch.zeros(items, slots * items, dtype=torch.bool)
    for own in same.view(slots, items):
        correct |= own[:, None] == same[None]
    return correct


def _retrieval(images: Gaussian, texts: Gaussian, token_ids: Tensor) -> dict[str, float]:
    correct = _correct(token_ids)
    metrics: dict[str, float] = {}
    for score in get_args(Score):
        infix = "" if score == "csd" else f"{score}_"
        for direction, result in (
            ("image_to_text", evaluate_retrieval(images, texts, correct, score)),
            ("text_to_image", evaluate_retrieval(texts, images, correct.T, score)),
        ):
            metrics |= {
                f"{direction}_{infix}{name}": value
                for name, value in dataclasses.asdict(result).items()
                if "num_" not in name
            }
    return metrics


def _uncertainty(images: Gaussian, texts: Gaussian, token_ids: Tensor, pad_id: int) -> dict[str, float]:
    """Of images and texts (docs/how-to/watch-a-run.md)."""
    correct = _correct(token_ids)
    metrics: dict[str, float] = {}
    for name, queries, candidates, right in (
        ("image", images, texts, correct),
        ("text", texts, images, correct.T),
    ):
        total_var = queries.total_var.double()
        first = first_ranks(queries, candidates, right) == 0
        low, high = total_var.quantile(torch.tensor([0.1, 0.9], dtype=total_var.dtype)).tolist()
        metrics |= {f"{name}_mean": float(total_var.mean()), f"{name}_std": float(total_var.std(correction=0))}
        metrics |= {f"{name}_low": low, f"{name}_high": high}
        metrics[f"{name}_pearson"] = uncertainty_bins(total_var, first, min(_NUM_BINS, len(total_var))).pearson
        metrics[f"{name}_risk_coverage"] = area_under_risk_coverage(total_var, first)
    lengths = (token_ids != pad_id).sum(-1).flatten().double()
    return metrics | {"text_length_spearman": spearman(texts.total_var.double(), lengths)}
