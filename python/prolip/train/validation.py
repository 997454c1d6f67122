"""Evaluation within a run: on schedule, on all ranks, without a trace in the training.

Every rank embeds its part of the pictures with the whole model; rank 0 measures what all of them embedded.
Shapes: N pictures of a set, C caption slots, L tokens, D embedding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from prolip.checkpoint import Best, CheckpointError, read_best
from prolip.data import BatchLoader, CaptionConfig, CaptionSource, DataError, LoaderConfig, Members, StoreConfig
from prolip.data.config import TokenizerConfig
from prolip.data.samples import read_label
from prolip.data.tokenizer import Tokenizer
from prolip.distributed import Ranks
from prolip.embeddings.embed import Paired, embed_pairs, embed_texts
from prolip.eval.measures import SCORES, flat, measure_zero_shot
from prolip.eval.prompts import fill_templates
from prolip.eval.retrieval import evaluate_retrieval, first_ranks
from prolip.eval.statistics import spearman
from prolip.eval.uncertainty import area_under_risk_coverage, uncertainty_bins
from prolip.eval.zero_shot import aggregate_prompts
from prolip.gaussian import Gaussian, concatenate
from prolip.models import ProLIP
from prolip.train.config import TrainConfig
from prolip.train.config.parts import CLASS_MEMBER, ValidationConfig, ValidationJob

_NUM_BINS = 10


class Reading(NamedTuple):
    """How a run's pictures and captions are read, where it is the same for training and evaluation."""

    image_size: int
    tokenizer: TokenizerConfig
    num_threads: int
    store: StoreConfig

    @classmethod
    def of_run(cls, config: TrainConfig) -> Self:
        """The settings that validation shares with a run's training."""
        size, data = config.model.vision.image_size, config.data
        assert isinstance(size, int)  # TrainConfig.loader checks it
        return cls(image_size=size, tokenizer=data.tokenizer, num_threads=data.num_threads, store=data.store)


class Validation:
    """The sets that a run evaluates, opened once. A context manager; every rank has one.

    Args:
        config: the sets.
        reading: how they are read.
        ranks: the processes, which share the pictures.
        precision: the context of every forward pass.

    Raises:
        ValueError: a file of class names cannot be read, or a sample has no such label.
        DataError: a shard cannot be opened.
    """

    def __init__(
        self,
        config: ValidationConfig,
        reading: Reading,
        ranks: Ranks,
        precision: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._ranks, self._precision = ranks, precision
        self._tokenizer = Tokenizer(reading.tokenizer) if config.jobs else None
        self._jobs = [
            (job, BatchLoader(_loading(job, reading), rank=ranks.rank, world_size=ranks.world_size))
            for job in config.jobs
        ]
        self._classes = {job.name: _class_names(job) for job in config.jobs}
        for place, (job, loader) in enumerate(self._jobs):
            if job.kind == "zero_shot":
                for batch in loader:
                    try:
                        _labels(job, batch.keys, batch.members)
                    except DataError as error:
                        raise ValueError(f"validation.jobs.{place}.label is {job.label!r}: {error}") from error
                    break

    def is_due(self, step: int, *, done: bool) -> bool:
        """Whether a set is to be evaluated after `step` steps; `done` where the run ends there."""
        return any(done or step % job.every == 0 for job, _ in self._jobs)

    def run(self, step: int, model: ProLIP, *, done: bool) -> dict[str, float]:
        """The figures of the sets that are due, on every rank the same; all ranks call it. What is not defined is NaN.

        Args:
            step: steps done.
            model: a whole model, as `whole_model` gives it; its mode is restored.
            done: whether the run ends here.

        Raises:
            DataError: a picture has no label, or a label is none of the classes.
        """
        figures: dict[str, float] = {}
        with torch.random.fork_rng([self._ranks.device] if self._ranks.device.type == "cuda" else []):
            for job, loader in self._jobs:
                if not done and step % job.every:
                    continue
                begun = time.perf_counter()
                found = self._evaluate(job, loader, model) | {"seconds": time.perf_counter() - begun}
                figures |= {f"val/{job.name}/{name}": value for name, value in found.items()}
        return figures

    def _evaluate(self, job: ValidationJob, loader: BatchLoader, model: ProLIP) -> dict[str, float]:
        with self._precision():
            own = embed_pairs(model, loader, self._ranks.device)
        labels = _labels(job, own.keys, own.members) if job.kind == "zero_shot" else []
        parts = [(own._replace(members={}), labels)]
        if self._ranks.world_size > 1:
            parts = [parts[0]] * self._ranks.world_size
            dist.gather_object(parts[0], parts if self._ranks.rank == 0 else None, dst=0)
        answer: list[dict[str, float]] = [{}]
        if self._ranks.rank == 0:
            pairs = _joined([pairs for pairs, _ in parts])
            labels = [label for _, some in parts for label in some]
            answer = [self._measure(job, model, pairs, labels)]
        if self._ranks.world_size > 1:
            dist.broadcast_object_list(answer, src=0, device=self._ranks.device)
        return answer[0]

    def _measure(self, job: ValidationJob, model: ProLIP, pairs: Paired, labels: list[str | int]) -> dict[str, float]:
        if job.kind == "retrieval":
            return _retrieval(pairs)
        assert self._tokenizer is not None  # there is a job
        if job.kind == "uncertainty":
            return _uncertainty(pairs, self._tokenizer.pad_id)
        names = self._classes[job.name] or sorted({str(label) for label in labels})
        prompts = fill_templates(job.templates, names)
        with self._precision():
            texts = embed_texts(model, self._tokenizer, [text for some in prompts for text in some], self._ranks.device)
        shape = (len(names), len(job.templates), -1)
        classifier = aggregate_prompts(Gaussian(texts.mean.view(shape), texts.log_var.view(shape)))
        places = _places(job, pairs.keys, labels, names)
        return measure_zero_shot(pairs.image, classifier, places, min(_NUM_BINS, len(places)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, loader in self._jobs:
            loader.close()


def whole_model(model: ProLIP, average: Mapping[str, Tensor] | None = None, *, copied: bool = False) -> ProLIP:
    """A model of plain tensors that a rank can run by itself; all ranks call it.

    Args:
        model: the trained one, whose parameters may be shards.
        average: other values of the parameters by name, such as their moving average.
        copied: whether it must be another model than the trained one in any case, such as where that is compiled.
    """
    parameters = dict(model.named_parameters()) | dict(average or {})
    if not copied and average is None and not any(isinstance(value, DTensor) for value in parameters.values()):
        return model
    device = next(iter(parameters.values())).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        copy = ProLIP(model.config)
    values = model.state_dict() | parameters
    with torch.no_grad():
        for name, target in copy.state_dict().items():
            value = values[name].detach()
            target.copy_(value.full_tensor() if isinstance(value, DTensor) else value)
    return copy


class BestSoFar:
    """The best value of a figure in the run, by which a checkpoint is kept. Every rank has one, and all say the same.

    Args:
        metric: the figure's name in its row; None keeps nothing.
        better: whether the largest or the smallest value is the best.
        folder: the run's checkpoints, in which an earlier sitting may have kept one.
        ranks: the processes.
        step: steps done.
    """

    def __init__(
        self, metric: str | None, better: Literal["max", "min"], folder: Path, ranks: Ranks, step: int
    ) -> None:
        self._metric, self._sign = metric, 1.0 if better == "max" else -1.0
        kept = [_kept_before(folder, metric, step) if ranks.rank == 0 and metric is not None else None]
        if ranks.world_size > 1:
            dist.broadcast_object_list(kept, src=0, device=ranks.device)
        self._value = -math.inf if kept[0] is None else self._sign * kept[0]

    def beaten_by(self, row: Mapping[str, float]) -> Best | None:
        """Why the model of this row is the best so far; None where it isn't, or the row is of other figures.

        Raises:
            ValueError: the row is of the figure's kind, and there is no such figure.
        """
        if self._metric is None:
            return None
        kind = self._metric.rpartition("/")[0]
        if self._metric not in row:
            if "loss" in row if not kind else any(name.startswith(f"{kind}/") for name in row):
                raise ValueError(f"keep_best is {self._metric!r}: it must be one of {', '.join(row)}")
            return None
        value = self._sign * row[self._metric]
        if not value > self._value:
            return None
        self._value = value
        return Best(metric=self._metric, value=row[self._metric])


def _kept_before(folder: Path, metric: str, step: int) -> float | None:
    try:
        found = read_best(folder)
    except CheckpointError:  # damaged: another will be kept
        return None
    return found[1].value if found is not None and found[0] <= step and found[1].metric == metric else None


# ---- Reading --------------------------------------------------------------------------------------------------------


def _loading(job: ValidationJob, reading: Reading) -> LoaderConfig:
    captions = () if job.kind == "zero_shot" else job.captions
    return LoaderConfig(
        shards=job.shards,
        batch_size=job.batch_size,
        image_size=reading.image_size,
        captions=tuple(CaptionConfig(sources=(CaptionSource(key=key),)) for key in captions),
        tokenizer=reading.tokenizer,
        shuffle_window=0,
        last_batch="keep",
        num_threads=reading.num_threads,
        store=reading.store,
        keep_members=(_member_of(job),) if job.kind == "zero_shot" else (),
    )


def _joined(parts: Sequence[Paired]) -> Paired:
    """The parts of all ranks, in their order, which is that of the shards."""
    if not any(part.keys for part in parts):
        raise DataError("a set of the validation has no picture")
    return Paired(
        image=concatenate([part.image for part in parts]),
        text=concatenate([part.text for part in parts], -2),
        token_ids=torch.cat([part.token_ids for part in parts], 1),
        keys=[key for part in parts for key in part.keys],
        members={},
    )


def _class_names(job: ValidationJob) -> list[str]:
    if job.classes is None or job.kind != "zero_shot":
        return []
    names = [line.strip() for line in job.classes.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{job.classes}: no class name")
    return names


def _member_of(job: ValidationJob) -> str:
    """The member that labels stand in."""
    return CLASS_MEMBER if job.label == CLASS_MEMBER else "json"


def _labels(job: ValidationJob, keys: Sequence[str], members: Members) -> list[str | int]:
    return [_label(job, key, member) for key, member in zip(keys, members[_member_of(job)], strict=True)]


def _label(job: ValidationJob, key: str, member: bytes | None) -> str | int:
    if job.label == CLASS_MEMBER:
        text = (member or b"").decode("utf-8", "replace").strip()
        if not text:
            raise DataError(f"sample {key}: it has no member .{CLASS_MEMBER}")
        return int(text) if text.isdecimal() else text
    return read_label(key, member, job.label)


def _places(job: ValidationJob, keys: Sequence[str], labels: Sequence[str | int], names: Sequence[str]) -> Tensor:
    """The number of each label's class, i64 [N]."""
    known: dict[str | int, int] = {name: place for place, name in enumerate(names)}
    if job.classes is not None:
        known |= {place: place for place in range(len(names))}
    else:
        known |= {label: known[str(label)] for label in labels}
    for key, label in zip(keys, labels, strict=True):
        if label not in known:
            raise DataError(f"sample {key}: its label {label!r} is none of the {len(names)} classes of {job.classes}")
    return torch.tensor([known[label] for label in labels])


# ---- Figures --------------------------------------------------------------------------------------------------------


def _correct(pairs: Paired) -> Tensor:
    """Which captions are right for which pictures, bool [N, C * N]: its own, and those that say the same."""
    slots, items, length = pairs.token_ids.shape
    _, same = torch.unique(pairs.token_ids.reshape(-1, length), dim=0, return_inverse=True)
    correct = torch.zeros(items, slots * items, dtype=torch.bool)
    for own in same.view(slots, items):
        correct |= own[:, None] == same[None]
    return correct


def _retrieval(pairs: Paired) -> dict[str, float]:
    """`image_to_text_recall_at_1` and the like, by sampled distance, and by means alone `image_to_text_mean_…`."""
    texts, correct = pairs.text.flatten(), _correct(pairs)
    figures: dict[str, float] = {}
    for score in SCORES:
        infix = "" if score == "csd" else f"{score}_"
        for way, found in (
            ("image_to_text", evaluate_retrieval(pairs.image, texts, correct, score)),
            ("text_to_image", evaluate_retrieval(texts, pairs.image, correct.T, score)),
        ):
            figures |= {f"{way}_{infix}{name}": value for name, value in flat(found).items() if "num_" not in name}
    return figures


def _uncertainty(pairs: Paired, pad_id: int) -> dict[str, float]:
    """Of images and texts: mean, spread, percentiles; whether the right partner of an uncertain one is found less often
    (`_pearson`: correlation of ten bins, negative is good; `_risk_coverage`: an area, small is good); of texts whether
    longer ones are more certain (`text_length_spearman`, negative)."""
    texts, correct = pairs.text.flatten(), _correct(pairs)
    figures: dict[str, float] = {}
    for name, queries, candidates, right in (
        ("image", pairs.image, texts, correct),
        ("text", texts, pairs.image, correct.T),
    ):
        unsure = queries.total_var.double()
        found = first_ranks(queries, candidates, right) == 0
        low, high = unsure.quantile(torch.tensor([0.1, 0.9], dtype=unsure.dtype)).tolist()
        figures |= {f"{name}_mean": float(unsure.mean()), f"{name}_std": float(unsure.std(correction=0))}
        figures |= {f"{name}_low": low, f"{name}_high": high}
        figures[f"{name}_pearson"] = uncertainty_bins(unsure, found, min(_NUM_BINS, len(unsure))).pearson
        figures[f"{name}_risk_coverage"] = area_under_risk_coverage(unsure, found)
    lengths = (pairs.token_ids != pad_id).sum(-1).flatten().double()
    return figures | {"text_length_spearman": spearman(texts.total_var.double(), lengths)}
