"""`Calibration`: statistics of a model's answers on a labelled set, kept in a file beside the model.

The labelled items are split at random. One part is used to fit the frequencies of labels, the temperature, the factor
and bias of pairs, the order of thresholds, and the distribution of known items. The scores of the other part give label
sets and "don't know" their guarantees, which hold for items that are exchangeable with it. N new items, n calibration
items, C labels, D dimensions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from prolip.decisions.abstain import Abstention, abstention_threshold, threshold_order
from prolip.decisions.config import NO_CSD, Prior, Score
from prolip.decisions.conformal import ClassThresholds, class_thresholds, conformal_scores, conformal_threshold
from prolip.decisions.doubt import Known, fit_known, outlier_p_values
from prolip.decisions.prior import label_shares, log_prior
from prolip.decisions.temperature import PairScale, fit_pairs, fit_temperature
from prolip.errors import UserError, check_choice
from prolip.files import atomic_file

_FORMAT = "2"


class Evidence(NamedTuple):
    """A model's scores for every item and label."""

    logits: Tensor
    """[N, C]; their softmax is the probability of each label."""
    distance: Tensor | None
    """[N, C], the sampled distance of item and label, with both variances; None for a model whose variances are
    epistemic: they say what it has not learned, which is no distance."""
    pair_logits: Tensor | None
    """[N, C], of each pair on its own; None for a model without a bias."""
    means: Tensor
    """[N, D], the items' means."""

    def with_prior(self, log_shares: Tensor) -> Evidence:
        """Return the evidence for labels with these log shares, [C]. Distances and pair logits do not change."""
        return self._replace(logits=self.logits + log_shares.to(self.logits))

    def rows(self, places: Tensor) -> Evidence:
        """Return the evidence on some items."""
        pairs = None if self.pair_logits is None else self.pair_logits[places]
        distance = None if self.distance is None else self.distance[places]
        return Evidence(self.logits[places], distance, pairs, self.means[places])


class Subject(NamedTuple):
    """The calibrated model, and the data and labels of its calibration."""

    model: str
    """The model's name."""
    fingerprint: str
    """The model's fingerprint."""
    data: str
    """Where the labelled items are from."""
    labels: list[str]
    """C labels."""
    templates: list[str]
    """The prompts of each label."""


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
    """The answers on the part that was used to fit; they order the thresholds of "don't know"."""

    confidence: Tensor
    """f64 [a]"""
    correct: Tensor
    """i64 [a]"""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A model's answers on labelled items, and what was fitted to them."""

    subject: Subject
    score: Score
    """How well a label fits an item, for label sets."""
    seed: int
    """Seed of the split."""
    prior: list[float] | None
    """The shares of the C labels; None for labels that are equally frequent."""
    temperature: float
    """Logits, to which the logarithm of the prior was added, are divided by it."""
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
        """The evidence if labels are as frequent as in the calibration. The methods below take that."""
        return evidence if self.prior is None else evidence.with_prior(log_prior(self.prior, len(self.labels)))

    def label_sets(self, evidence: Evidence, guarantee: float, *, per_label: bool = False) -> Tensor:
        """Which labels are in each item's set, bool [N, C]; the most probable label always is.

        Without that addition, some sets would be empty. It can only raise the coverage.

        Args:
            evidence: on N items, with the calibration's prior.
            guarantee: probability that the right label is in the set, between 0 and 1.
            per_label: whether the guarantee must hold for the items of each label (`class_thresholds`), not only over
                all items.
        """
        scores = score_labels(evidence, self.score, self.temperature)
        value: Tensor | float = conformal_threshold(self.held.score, guarantee)
        if per_label:
            value = self.class_thresholds(guarantee).value
        best = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, evidence.logits.argmax(dim=1, keepdim=True), True)
        return (scores <= value) | best

    def class_thresholds(self, guarantee: float) -> ClassThresholds:
        """The threshold of each label for sets that hold the guarantee per label, and what it was taken from."""
        return class_thresholds(self.held.score, self.held.label, len(self.labels), guarantee, seed=self.seed)

    def abstention(self, max_error: float, *, delta: float = 0.05) -> Abstention:
        """The threshold on the largest probability below which the answer is "don't know".

        Args:
            max_error: largest share of wrong answers among those given, between 0 and 1.
            delta: probability that a calibration set misleads, between 0 and 1.
        """
        order = threshold_order(self.fitted.confidence, self.fitted.correct, max_error)
        return abstention_threshold(self.held.confidence, self.held.correct, order, max_error, delta=delta)

    def usual(self, means: Tensor) -> Tensor:
        """How usual items with these means [N, D] are, f64 [N], in (0, 1]; small is unusual (`outlier_p_values`)."""
        return outlier_p_values(self.known.distance(means), self.held.distance)

    def check_model(self, fingerprint: str) -> None:
        """Check that the calibration is for this model.

        Raises:
            UserError: it is for another one.
        """
        if fingerprint != self.subject.fingerprint:
            raise UserError(
                f"the calibration is for other weights or settings than this model has (it was made for "
                f"{self.subject.model}): make a new one with prolip calibrate"
            )

    def check_labels(self, labels: Sequence[str], templates: Sequence[str]) -> None:
        """Check that the calibration is for these labels, in this order, and these templates.

        Raises:
            UserError: it is for others; the message says which.
        """
        known = self.subject.labels
        if list(labels) != known:
            other = [label for label in labels if label not in known]
            missing = [label for label in known if label not in labels]
            what = f"{other[0]!r} is not" if other else f"{missing[0]!r} is missing" if missing else "the order differs"
            raise UserError(f"labels must be the {len(known)} that the model was calibrated with: {what}")
        if list(templates) != self.subject.templates:
            raise UserError(f"templates is {list(templates)}: the model was calibrated with {self.subject.templates}")


def score_labels(evidence: Evidence, score: Score, temperature: float) -> Tensor:
    """The score of every label of every item, f64 [N, C]; small if the label fits.

    Raises:
        UserError: the score is the sampled distance, and the model has none.
    """
    if score == "csd":
        if evidence.distance is None:
            raise UserError(f"score is csd: {NO_CSD}; take lac, aps or raps")
        return evidence.distance.double()
    return conformal_scores((evidence.logits.double() / temperature).softmax(dim=1), score)


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
    """Return a calibration, and the indices of the items that were not used to fit it, i64 [n].

    Args:
        evidence: on the labelled items, without a prior.
        truth: i64 [N], the right label of each.
        subject: what is calibrated.
        score: for label sets.
        prior: how frequent labels are: all equally, or as among the items used to fit.
        fit_share: share of the items used to fit, between 0 and 1.
        seed: seed of the split.

    Raises:
        UserError: there are too few items for two parts, or too few labels, or a word is unknown.
    """
    check_choice("prior", prior, Prior)
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(seed))
    count = int(len(truth) * fit_share)
    fitting, held = order[:count], order[count:]
    if len(fitting) < 2 or len(held) < 2:
        raise UserError(
            f"{subject.data}: {len(truth)} labelled items are too few: each of two parts needs at least two"
        )
    num_labels = len(subject.labels)
    if num_labels < 2:
        raise UserError(f"{subject.data}: there is one label, which is always right: a calibration needs at least two")
    shares = label_shares(truth[fitting], num_labels) if prior == "labelled" else None
    if shares is not None:
        evidence = evidence.with_prior(log_prior(shares, num_labels))
    some, rest = evidence.rows(fitting), evidence.rows(held)
    temperature = fit_temperature(some.logits, truth[fitting])
    pairs = None
    if some.pair_logits is not None:
        match = torch.nn.functional.one_hot(truth[fitting], num_labels).bool()
        pairs = fit_pairs(some.pair_logits, match)
    known = fit_known(some.means, truth[fitting])
    confidence, correct = _answers(rest, truth[held], temperature)
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
            correct=correct,
            distance=known.distance(rest.means),
        ),
        fitted=Fitted(*_answers(some, truth[fitting], temperature)),
        known=known,
    )
    return found, held


def _answers(evidence: Evidence, truth: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The largest probability of each item, and whether its label is right."""
    confidence, answer = (evidence.logits.double() / temperature).softmax(dim=1).max(dim=1)
    return confidence, (answer == truth).long()


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------

_PARTS: dict[str, type[Held] | type[Fitted] | type[Known]] = {"held": Held, "fitted": Fitted, "known": Known}


def save_calibration(found: Calibration, path: Path) -> None:
    """Write a calibration to a safetensors file; everything that is not a tensor is JSON in its header."""
    tensors: dict[str, Tensor] = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part in _PARTS
        for name, tensor in getattr(found, part)._asdict().items()
    }
    header = {
        "subject": found.subject._asdict(),
        "score": found.score,
        "seed": found.seed,
        "prior": found.prior,
        "temperature": found.temperature,
        "pairs": None if found.pairs is None else found.pairs._asdict(),
    }
    written = {"format": _FORMAT, "calibration": json.dumps(header, ensure_ascii=False)}
    with atomic_file(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_file(tensors, temporary, written)


def load_calibration(path: Path) -> Calibration:
    """Read the file that `save_calibration` wrote.

    Raises:
        UserError: there is no such file, or it holds no calibration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or "calibration" not in metadata:
                raise UserError(f"{path} holds no calibration: prolip calibrate writes one")
            header = json.loads(metadata["calibration"])
            parts = {
                part: kind(**{name: file.get_tensor(f"{part}.{name}") for name in kind._fields})
                for part, kind in _PARTS.items()
            }
        if header["score"] not in get_args(Score):
            raise UserError(f"{path} has the unknown score {header['score']!r}")
        found = Calibration(
            subject=Subject(**header["subject"]),
            score=header["score"],
            seed=int(header["seed"]),
            prior=header["prior"],
            temperature=float(header["temperature"]),
            pairs=None if header["pairs"] is None else PairScale(**header["pairs"]),
            held=parts["held"],  # type: ignore[arg-type]
            fitted=parts["fitted"],  # type: ignore[arg-type]
            known=parts["known"],  # type: ignore[arg-type]
        )
        _check_whole(found)
        return found
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such calibration") from None
    except OSError as error:  # safetensors' own, which does not name the file
        raise UserError(f"{path} cannot be read: {error}") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} holds no calibration: {error}") from error


def _check_whole(found: Calibration) -> None:
    """Check that the parts of a file fit together: it may be written by another program, or by hand.

    Raises:
        ValueError: they do not; the message names the part.
    """
    num_labels = len(found.labels)
    rules = {
        "temperature": 0 < found.temperature < math.inf,
        "pairs": found.pairs is None or all(map(math.isfinite, found.pairs)),
        "prior": found.prior is None or len(found.prior) == num_labels,
        "held.label": bool(((found.held.label >= 0) & (found.held.label < num_labels)).all()),
        "held": len({len(tensor) for tensor in found.held}) == 1 and _finite(found.held),
        "fitted": len({len(tensor) for tensor in found.fitted}) == 1 and _finite(found.fitted),
        "known": found.known.precision.shape == (found.known.centres.shape[-1],) * 2 and _finite(found.known),
    }
    for name, holds in rules.items():
        if not holds:
            raise ValueError(f"{name} does not fit the rest, or is not finite")


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
