"""`Calibration`: statistics of a model's answers on a labelled set, kept in a file beside the model.

A random part of the labelled items fits all parameters. The scores of the rest give label sets and "don't know" their
guarantees, for items that are exchangeable with it. N new items, n calibration items, C labels, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from prolip.calibration.abstain import Abstention, abstention_threshold, threshold_order
from prolip.calibration.config import Prior, Score
from prolip.calibration.conformal import ClassThresholds, class_thresholds, conformal_threshold
from prolip.calibration.fitting import (
    Known,
    PairScale,
    fit_known,
    fit_pairs,
    fit_temperature,
    label_shares,
    log_prior,
)
from prolip.errors import UserError, check, check_choice
from prolip.store.atomic_writes import write_atomic

_FORMAT = "2"


class Evidence(NamedTuple):
    """Scores for every item and label."""

    logits: Tensor
    """[N, C]; their softmax is the probability of each label."""
    distance: Tensor
    """[N, C], the sampled distance of item and label."""
    pair_logits: Tensor | None
    """[N, C], of each pair on its own; None for a model without a bias."""
    means: Tensor
    """[N, D], the items' means."""

    def with_prior(self, log_shares: Tensor) -> Evidence:
        """For labels with these log shares, [C], which change the logits alone."""
        return self._replace(logits=self.logits + log_shares.to(self.logits))

    def rows(self, places: Tensor | slice) -> Evidence:
        """On some items."""
        return Evidence(*(None if part is None else part[places] for part in self))  # type: ignore[arg-type]


class Subject(NamedTuple):
    """The calibrated model, and the data and labels of its calibration."""

    model: str
    fingerprint: str
    data: str
    labels: list[str]
    templates: list[str]

    def check_model(self, fingerprint: str) -> None:
        """A UserError if the calibration is for another model."""
        check(
            fingerprint == self.fingerprint,
            "calibration",
            "must be for these weights and settings; prolip calibrate makes one",
            f"that of {self.model}",
        )


class Held(NamedTuple):
    """The part of the labelled items that was not used to fit."""

    score: Tensor
    """f64 [n], score of the right label."""
    label: Tensor
    """i64 [n]"""
    confidence: Tensor
    """f64 [n], the largest probability."""
    correct: Tensor
    """i64 [n], 1 if the most probable label is right."""
    distance: Tensor
    """f64 [n], from the known items."""


class Fitted(NamedTuple):
    """Answers on the other part; they order the thresholds of "don't know"."""

    confidence: Tensor
    """f64 [a]"""
    correct: Tensor
    """i64 [a]"""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Answers on labelled items, and what was fitted to them."""

    subject: Subject
    score: Score
    """Conformity score of the label sets."""
    seed: int
    prior: list[float] | None
    """C frequencies; None if equal."""
    temperature: float
    """Divides the logits after the logarithm of the prior was added."""
    pairs: PairScale | None
    """Factor and bias of pair logits; None for a model without a bias."""
    held: Held
    fitted: Fitted
    known: Known

    @property
    def labels(self) -> list[str]:
        """The C labels."""
        return self.subject.labels

    def with_prior(self, evidence: Evidence) -> Evidence:
        """With the calibration's label frequencies; the methods below take that."""
        return evidence if self.prior is None else evidence.with_prior(log_prior(self.prior, len(self.labels)))

    def confidence(self, evidence: Evidence) -> Tensor:
        """The largest calibrated probability of each item, f64 [N]."""
        return _answers(evidence, self.temperature)[0]

    def label_sets(self, evidence: Evidence, guarantee: float, *, per_label: bool = False) -> Tensor:
        """Which labels are in each item's set, bool [N, C]; the most probable one always is, so that no set is empty.

        Args:
            evidence: on N items, with the calibration's prior.
            guarantee: probability that the right label is in the set, between 0 and 1.
            per_label: whether the guarantee must hold for the items of each label (`class_thresholds`).
        """
        scores = score_labels(evidence, self.score, self.temperature)
        value: Tensor | float = conformal_threshold(self.held.score, guarantee)
        if per_label:
            value = self.class_thresholds(guarantee).value
        return (scores <= value) | F.one_hot(evidence.logits.argmax(dim=1), scores.shape[1]).bool()

    def class_thresholds(self, guarantee: float) -> ClassThresholds:
        """Of each label, for sets that hold the guarantee per label."""
        return class_thresholds(self.held.score, self.held.label, len(self.labels), guarantee, seed=self.seed)

    def abstention(self, max_error: float, *, delta: float = 0.05) -> Abstention:
        """The confidence below which the answer is "don't know".

        Args:
            max_error: maximum share of wrong answers among those given, between 0 and 1.
            delta: share of calibrations for which the limit may not hold, between 0 and 1.
        """
        order = threshold_order(self.fitted.confidence, self.fitted.correct, max_error)
        return abstention_threshold(self.held.confidence, self.held.correct, order, max_error, delta=delta)

    def usual(self, means: Tensor) -> Tensor:
        """Conformal p-value of items with these means [N, D], f64 [N], in (0, 1]; small means out of distribution.

        (1 + number of calibration items at least as far from the known ones) / (n + 1) (arXiv:2104.08279).
        """
        ordered = self.held.distance.sort().values
        nearer = torch.searchsorted(ordered, self.known.distance(means))
        return (1 + len(ordered) - nearer).double() / (len(ordered) + 1)


def score_labels(evidence: Evidence, score: Score, temperature: float) -> Tensor:
    """The score of every label of every item, f64 [N, C]; small if the label fits."""
    check_choice("score", score, Score)
    return evidence.distance.double() if score == "csd" else 1 - (evidence.logits.double() / temperature).softmax(dim=1)


def fit_calibration(
    evidence: Evidence,
    truth: Tensor,
    subject: Subject,
    *,
    score: Score = "lac",
    prior: Prior = "labelled",
    fit_share: float = 0.3,
    seed: int = 0,
) -> tuple[Calibration, Tensor]:
    """A calibration, and the indices of the items that were not used to fit it, i64 [n].

    Args:
        evidence: on the labelled items, without a prior.
        truth: i64 [N], the right label of each.
        fit_share: share of the items used to fit, between 0 and 1.

    Raises:
        UserError: there are too few items for two parts, or too few labels, or a word is unknown.
    """
    check_choice("prior", prior, Prior)
    num_labels = len(subject.labels)
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(seed))
    count = int(len(truth) * fit_share)
    fitting, held = order[:count], order[count:]
    if min(len(fitting), len(held), num_labels) < 2:
        raise UserError(
            "data",
            "must have at least two labels, and two labelled items in each part of the split",
            f"{num_labels} labels, {len(truth)} items in {subject.data}",
        )
    shares = label_shares(truth[fitting], num_labels) if prior == "labelled" else None
    if shares is not None:
        evidence = evidence.with_prior(log_prior(shares, num_labels))
    some, rest = evidence.rows(fitting), evidence.rows(held)
    temperature = fit_temperature(some.logits, truth[fitting])
    pairs = None
    if some.pair_logits is not None:
        pairs = fit_pairs(some.pair_logits, F.one_hot(truth[fitting], num_labels).bool())
    known = fit_known(some.means, truth[fitting])
    (confidence, answer), (fitted_confidence, fitted_answer) = (_answers(side, temperature) for side in (rest, some))
    found = Calibration(
        subject=subject,
        score=score,
        seed=seed,
        prior=shares,
        temperature=temperature,
        pairs=pairs,
        held=Held(
            score=score_labels(rest, score, temperature).gather(1, truth[held, None])[:, 0],
            label=truth[held],
            confidence=confidence,
            correct=(answer == truth[held]).long(),
            distance=known.distance(rest.means),
        ),
        fitted=Fitted(fitted_confidence, (fitted_answer == truth[fitting]).long()),
        known=known,
    )
    return found, held


def _answers(evidence: Evidence, temperature: float) -> tuple[Tensor, Tensor]:
    confidence, answer = (evidence.logits.double() / temperature).softmax(dim=1).max(dim=1)
    return confidence, answer


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------

_TENSORS: dict[str, type[Held] | type[Fitted] | type[Known]] = {"held": Held, "fitted": Fitted, "known": Known}
_HEADER = ("subject", "score", "seed", "prior", "temperature", "pairs")


def save_calibration(found: Calibration, path: Path) -> None:
    """To a safetensors file, with JSON in its header."""
    save_parts(found, path, _HEADER, tuple(_TENSORS), _FORMAT)


def load_calibration(path: Path) -> Calibration:
    """Undo `save_calibration`; a UserError for another file, or none."""
    with reading(path):
        header = load_parts(path, _TENSORS, _FORMAT)
        return Calibration(**header | {"pairs": header["pairs"] and PairScale(**header["pairs"])})


def save_parts(found: Any, path: Path, header: Sequence[str], parts: Sequence[str], version: str) -> None:
    """Write fields: those of the header as JSON, and parts, named tuples of tensors."""
    tensors: dict[str, Tensor] = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part in parts
        for name, tensor in getattr(found, part)._asdict().items()
    }
    values = {name: getattr(found, name) for name in header}
    values = {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in values.items()}
    written = {"format": version, "calibration": json.dumps(values, ensure_ascii=False)}
    write_atomic(path, save(tensors, written))


def load_parts(path: Path, parts: Mapping[str, Callable[..., Any]], version: str) -> dict[str, Any]:
    """Read the fields that `save_parts` wrote, within `reading`."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        header: dict[str, Any] = json.loads(metadata["calibration"] if metadata.get("format") == version else "{}")
        for part, kind in parts.items():
            header[part] = kind(*(file.get_tensor(f"{part}.{name}") for name in kind._fields))  # type: ignore[attr-defined]
    return header | {"subject": Subject(**header["subject"])}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of a file that is no calibration into a UserError."""
    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(path, f"must be a calibration that prolip calibrate wrote ({error})") from error
