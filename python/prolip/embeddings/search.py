"""Find the embedded images or captions nearest to text and image queries (`prolip search`), by exact search.

Q queries, N rows, D dimensions.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from prolip.calibration.config import QueryKind
from prolip.calibration.search import DEPTH, SearchCalibration
from prolip.embeddings.config import SearchOptions
from prolip.embeddings.contact_sheet import SIDE, Cell, Row, contact_sheet
from prolip.embeddings.originals import Name, Original, fetch
from prolip.embeddings.storage import ROWS, Floats, Manifest, Part, complete_parts
from prolip.errors import UserError, check, check_at_least, printable
from prolip.gaussian import Gaussian, concatenate, inclusion_score
from prolip.images.preprocess import Pixels, Preprocess
from prolip.inference.load_model import load
from prolip.inference.model import Model, weights_digest
from prolip.inference.tokenizer import warn_of_unknown_words
from prolip.metrics.config import Score
from prolip.metrics.statistics import auroc, value_of
from prolip.models.convert_open_clip import StartError
from prolip.models.weights import WeightsError
from prolip.report.text_table import align
from prolip.store.atomic_writes import check_writable, write_atomic
from prolip.store.file_contents import read_text
from prolip.store.folder import Folder

logger = logging.getLogger(__name__)

_DECIMALS = 9
"""Decimals in which equal scores must agree. Sums over blocks of other sizes differ in the last bits."""

RIVALS = 100
"""Nearest rows among which a result's posterior is computed; farther ones have hardly any share."""
_UNLIKELY = 2.58
"""Standard deviations that a rank statistic of equal distributions exceeds with a probability of 1 %."""
_LONGEST = 30
"""Letters of a query and of a caption in a table of queries, so that it fits a terminal."""


class Hit(NamedTuple):
    """A row among the nearest."""

    score: float
    """Larger is nearer; see `retrieval_scores`."""
    part: int
    row: int


class Answer(NamedTuple):
    """A result, with the measures that are shown."""

    key: str
    source: str
    """The shard, folder or text file that the key is from."""
    score: float
    """The score that ranks the results; larger is nearer."""
    similarity: float
    """Dot product of the means."""
    uncertainty: float | None
    """Total variance of the result; None if the model has no variances."""
    inclusion: float | None
    """H of the result in the query, summed over dimensions; positive if the query is the more general. None
    if the model has no variances, or they are not stored."""
    file: str | None = None
    """The image's own file name, if it is not the key and could be fetched."""
    caption: str | None = None
    """Its text, or the image's caption, if it could be fetched."""
    probability: float | None = None
    """How probable it is that the result is right; None unless the search makes a promise."""
    posterior: float | None = None
    """Share of the query's exponentiated logits that the result has, among the nearest hundred. It tells right first
    results from wrong ones better than their scores do (docs/real-clips.md), but is no probability."""


class Promised(NamedTuple):
    """The results of a query that a search promises, or the nearest ones if nothing matches."""

    hits: list[Hit]
    probabilities: list[float] | None
    """How probable it is that each is right; None by decoys."""
    matches: int
    """How many results match; 0 if nothing does."""
    contained: float | None
    """Estimated share of the queries with a right image that get one, or None; see `Limits`."""


def run_search(options: SearchOptions) -> list[str]:
    """Search, write the sheet, and return the lines to print.

    Raises:
        UserError: there is no query, the embeddings are not finished or from another model, or a file is not an image.
        OSError: the sheet cannot be written; see `check_writable`.
    """
    given = "" if options.queries is None else read_text(options.queries)
    texts = [*options.text, *filter(None, map(str.strip, given.split("\n")))]
    check(
        texts or options.image or options.vector or options.row,
        "text",
        "must name at least one text, image, vector or row",
    )
    check_at_least(1, k=options.k)
    if options.sheet is not None:
        check_writable(options.sheet)
    for path in options.image:
        check(path.is_file(), path, "no such image file")
    other, folder = "text" if options.find == "image" else "image", Folder(options.embeddings)
    manifest, parts = complete_parts(folder, options.find, instead=f"search them with --find {other}")
    promises = options.contains_right is not None or options.max_wrong is not None
    model = _open_model(options, manifest) if texts or options.image or promises else None
    calibrated = None if model is None or not promises else _calibration(options, model)
    score: Score = options.score or ("csd" if calibrated is None else calibrated.score)
    check(calibrated is None or calibrated.score == score, "score", "must be left out, or as in the calibration", score)
    titles, queries = _queries(options, model, texts, manifest, parts)
    kinds: list[QueryKind] = ["text" if place < len(texts) else "image" for place in range(len(titles))]
    promised = list[Promised]()
    near = nearest(parts, queries.mean.numpy(), max(options.k, RIVALS), score)
    posteriors = [posterior([hit.score for hit in some], manifest.logit_scale)[: options.k] for some in near]
    hits = [some[: options.k] for some in near]
    if calibrated is not None:
        rows, asked = manifest.rows["image"], (options.contains_right, options.max_wrong)
        promised = [promise(calibrated, kind, rows, some, *asked) for kind, some in zip(kinds, hits, strict=True)]
        if options.contains_right is not None and any(full := [one.matches == options.k < rows for one in promised]):
            logger.warning("--k %d may be too few for --contains_right (%d queries): raise it", options.k, sum(full))
        hits = [one.hits for one in promised]
        for what in unlike_decoys(calibrated, texts, near, rows):
            logger.warning("--max_wrong may not hold: the text queries are unlike the decoys in their %s", what)
    answers = look_up(parts, hits, queries, has_variances=manifest.has_variances)
    for some, shares in zip(answers, posteriors, strict=True):
        some[:] = [answer._replace(posterior=share) for answer, share in zip(some, shares, strict=False)]
    for some, one in zip(answers, promised, strict=False):
        some[:] = [
            answer._replace(probability=p)
            for answer, p in zip(some, one.probabilities or (None,) * len(some), strict=True)
        ]
    names = sorted({(answer.source, answer.key) for found in answers for answer in found})
    caption_key = manifest.settings.caption_key
    side, remote = None if options.sheet is None else SIDE, options.sheet is not None or options.find == "text"
    contents = fetch(names, side, options.store, caption_key, remote=remote)
    answers = [[_with_contents(answer, contents) for answer in found] for found in answers]
    shown = [
        title if not promised or promised[place].matches else f"{title}: nothing here matches; the nearest:"
        for place, title in enumerate(titles)
    ]
    if options.sheet is not None:
        images: list[Pixels | None] = [Preprocess().thumbnail(path, SIDE) for path in options.image]
        images = [*[None] * len(texts), *images, *[None] * len(titles)][: len(titles)]
        lines = [
            Row(title, image, [_cell(rank, answer, contents) for rank, answer in enumerate(found, start=1)])
            for title, image, found in zip(shown, images, answers, strict=True)
        ]
        write_atomic(options.sheet, contact_sheet(f"{folder.name}: nearest by {score}", lines))
    if options.json:
        entries = [
            {
                "query": title,
                **({name: getattr(promised[place], name) for name in ("matches", "contained")} if promised else {}),
                "answers": [_numbered(rank, answer) for rank, answer in enumerate(found, start=1)],
            }
            for place, (title, found) in enumerate(zip(titles, answers, strict=True))
        ]
        return [json.dumps(entries, indent=1, ensure_ascii=False)]
    tables = (
        [answers_table(title, found) for title, found in zip(shown, answers, strict=True)]
        if options.queries is None
        else [queries_table(titles, answers, promised)]
    )
    if calibrated is not None:
        each = dict(zip(kinds, promised, strict=True)).items()
        what = "results" if options.contains_right is None else "it"
        told = [
            f"{one.contained:.0%} of the {kind} queries that have a right image get {what}."
            for kind, one in each
            if one.contained is not None
        ]
        tables.append(
            [*told, f"This holds for queries and images like those of {calibrated.subject.data}, and for no others."]
        )
    return "\n\n".join("\n".join(table) for table in tables).split("\n")


def _calibration(options: SearchOptions, model: Model) -> SearchCalibration:
    """The calibration that promises need."""
    check(not options.vector and not options.row, "vector", "must be a text or an image for a promise", options.vector)
    check(options.find == "image", "find", "must be image for a promise", options.find)
    found = model.search_calibration
    if found is None:
        raise UserError("calibration", "must be given, or be beside the model; see prolip calibrate search")
    return found


def unlike_decoys(
    known: SearchCalibration, texts: Sequence[str], hits: Sequence[Sequence[Hit]], rows: int
) -> list[str]:
    """In what text queries differ from a calibration's decoys by more than chance, in a collection of so many images.

    By a rank test, p < 0.01; one or two queries, if they are out of the decoys' range. Scores are those of the image at
    place `DEPTH`, and are not compared in another collection: a right image raises the best score, and more images all.
    """
    measures: list[tuple[str, Sequence[float], Sequence[float]]]
    measures = [("numbers of words", [len(text.split()) for text in texts], known.words)]
    if rows == known.num_images:
        scores = [some[:DEPTH][-1].score for some in hits[: len(texts)]]
        measures.append((f"scores of the image at place {DEPTH}", scores, known.depth_scores))
    found, ours, theirs = list[str](), len(texts), len(known.words)
    for what, some, others in measures if ours and theirs else ():
        values = torch.tensor([*some, *others], dtype=torch.float64)
        longer = value_of(auroc, values, torch.arange(ours + theirs) < ours)
        if abs(longer - 0.5) >= min(0.5, _UNLIKELY * math.sqrt((ours + theirs + 1) / (12 * ours * theirs))):
            found.append(what)
    return found


def posterior(scores: Sequence[float], logit_scale: float) -> list[float]:
    """The softmax of a query's scores at the scale of the model's logits."""
    shares: list[float] = (torch.tensor(scores, dtype=torch.float64) * logit_scale).softmax(0).tolist()
    return shares


def promise(
    calibrated: SearchCalibration,
    kind: QueryKind,
    rows: int,
    hits: list[Hit],
    contains_right: float | None,
    max_wrong: float | None,
) -> Promised:
    """Return a query's results: those of its nearest images, in a collection of so many, that the promises need."""
    limits = calibrated.limits(kind, rows, contains_right=contains_right, max_wrong=max_wrong)
    matching = [hit for hit in hits if hit.score >= limits.within and hits[0].score > limits.shown]
    kept = matching or hits
    scores = torch.tensor([hit.score for hit in kept], dtype=torch.float64)
    probabilities = None if limits.contained is None else calibrated.probability(kind, scores, rows).tolist()
    return Promised(kept, probabilities, len(matching), limits.contained)


def _queries(
    options: SearchOptions, model: Model | None, texts: list[str], manifest: Manifest, parts: Sequence[Part]
) -> tuple[list[str], Gaussian]:
    """Titles and Gaussians [Q, D] of all queries; texts first, then images, whose model must be there."""
    found = list[Gaussian]()
    if model is not None and texts:
        warn_of_unknown_words(model.encoder.tokenizer, texts)
        found.append(model.encode_texts(texts, progress=False))
    if model is not None and options.image:
        found.append(model.encode_images(options.image, progress=False))
    vectors = [*_vector_queries(options, manifest, parts)]
    titles = [*texts, *map(str, options.image), *(title for title, _ in vectors)]
    return titles, concatenate([*found, *(Gaussian.point(vector) for _, vector in vectors)])


def _vector_queries(
    options: SearchOptions, manifest: Manifest, parts: Sequence[Part]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Titles of vector and row queries, with their vectors [1, D] of unit norm."""
    for path in options.vector:
        try:
            rows = np.atleast_2d(np.load(path, allow_pickle=False)).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(path, f"must be an .npy file of vectors ({error})") from error
        norm = np.linalg.norm(rows, axis=-1, keepdims=True)
        fits = rows.ndim == 2 and rows.shape[1] == manifest.dim and bool((np.isfinite(norm) & (norm > 0)).all())
        check(fits, path, f"vectors must be [N, {manifest.dim}], finite and not 0", list(rows.shape))
        for place, row in enumerate(torch.from_numpy(rows / norm)):
            yield f"{path}[{place}]" if len(rows) > 1 else str(path), row[None]
    left = set(options.row)
    for part in parts if left else ():
        for place, key in enumerate(part.names()[0]):
            if key in left:
                left.remove(key)
                yield key, torch.tensor([part.row(place)["mean"]], dtype=torch.float32)
    check(not left, "row", f"must be a key of {options.embeddings}", min(left, default=""))


def _open_model(options: SearchOptions, manifest: Manifest) -> Model:
    source = options.checkpoint or manifest.checkpoint
    if source is None:
        raise UserError("checkpoint", f"the model of {options.embeddings} is not known: search by --row or --vector")
    try:
        model = load(
            source,
            tokenizer=options.tokenizer or manifest.tokenizer,
            device=options.device,
            calibration=options.calibration,
        )
    except (StartError, WeightsError) as error:
        if options.checkpoint is not None:
            raise
        # As it was named then: a relative path may not lead there from the current folder.
        raise UserError("checkpoint", f"must name the model that made {options.embeddings} ({error})") from error
    check(
        weights_digest(model.network) == manifest.weights,
        "checkpoint",
        f"must be the model that made {options.embeddings}",
        source,
    )
    return model


def _with_contents(answer: Answer, contents: Mapping[Name, Original]) -> Answer:
    found = contents.get((answer.source, answer.key))
    return answer if found is None else answer._replace(caption=found.caption, file=found.file)


def _numbered(rank: int, answer: Answer) -> dict[str, Any]:
    return {"rank": rank, **{name: value for name, value in answer._asdict().items() if value is not None}}


def _cell(rank: int, answer: Answer, contents: Mapping[Name, Original]) -> Cell:
    lines = [f"score {answer.score:.4f}, similarity {answer.similarity:.4f}"]
    if answer.uncertainty is not None:
        lines.append(f"uncertainty {answer.uncertainty:.5f}")
    if answer.inclusion is not None:
        lines.append(f"inclusion {answer.inclusion:.2f}")
    if answer.probability is not None:
        lines.append(f"right with probability {answer.probability:.0%}")
    return Cell(f"{rank}. {answer.key}", contents.get((answer.source, answer.key)), [*lines, answer.source])


# ---- The search -----------------------------------------------------------------------------------------------------


def nearest(parts: Sequence[Part], means: Floats, k: int, score: Score = "csd", rows: int = ROWS) -> list[list[Hit]]:
    """The k best rows for each query, best first; equal scores are in order of part and row.

    Only one block and the results are in memory. The results do not depend on the block size, nor on how rows are split
    into parts.

    Args:
        means: f32 [Q, D].
        k: results per query, at least 1.
        score: `mean`: the dot product of the means. `csd`: that, minus half the row's total variance, which ranks as
            the closed-form sampled distance does.
    """
    found: list[list[Hit]] = [[] for _ in means]
    for place, part in enumerate(parts):
        for block in part.blocks(rows):
            scores = means.astype(np.float64) @ block.mean.astype(np.float64).T
            if score == "csd":
                scores -= block.total_var.astype(np.float64) / 2
            for query, values in enumerate(scores.round(_DECIMALS)):
                best = np.argsort(-values, kind="stable")[:k].tolist()
                more = [Hit(float(values[row]), place, block.start + row) for row in best]
                found[query] = sorted([*found[query], *more], key=lambda hit: -hit.score)[:k]
    return found


def look_up(
    parts: Sequence[Part], hits: Sequence[Sequence[Hit]], queries: Gaussian, *, has_variances: bool = True
) -> list[list[Answer]]:
    """Keys, sources and measures of the rows, per query.

    Args:
        hits: Q lists of hits.
        queries: [Q, D].
        has_variances: whether the model has variances; without them, uncertainty and inclusion are None.
    """

    def answer(hit: Hit, query: Gaussian) -> Answer:
        row = parts[hit.part].row(hit.row)
        mean, log_var = torch.tensor([row["mean"]]), torch.tensor([row.get("log_var", [])])
        return Answer(
            row["key"],
            row["source"],
            score=hit.score,
            similarity=float((mean.double() * query.mean.double()).sum()),
            uncertainty=row["total_var"] if has_variances else None,
            inclusion=float(inclusion_score(Gaussian(mean, log_var), query).sum())
            if has_variances and log_var.numel()
            else None,
        )

    each = [queries.rows(slice(number, number + 1)) for number in range(len(hits))]
    return [[answer(hit, query) for hit in found] for query, found in zip(each, hits, strict=True)]


# ---- What is shown --------------------------------------------------------------------------------------------------


def answers_table(query: str, answers: Sequence[Answer]) -> list[str]:
    """A query's results as lines of a table."""
    width = max(len(printable(name)) for name in ["key", *(answer.key for answer in answers)])
    lines = [
        printable(query),
        f"  {'':>4}  {'key':{width}}  {'score':>8}  {'similarity':>10}  {'uncertainty':>11}  {'inclusion':>9}"
        + "  posterior"
        + ("   right" if answers and answers[0].probability is not None else ""),
    ]
    for rank, answer in enumerate(answers, start=1):
        uncertainty = "-" if answer.uncertainty is None else f"{answer.uncertainty:.5f}"
        inclusion = "-" if answer.inclusion is None else f"{answer.inclusion:.2f}"
        share = "-" if answer.posterior is None else f"{answer.posterior:.1%}"
        right = "" if answer.probability is None else f"{answer.probability:6.1%}  "
        lines.append(
            f"  {rank:>4}  {printable(answer.key):{width}}  {answer.score:8.4f}  {answer.similarity:10.4f}  "
            f"{uncertainty:>11}  {inclusion:>9}  {share:>9}  {right}"
            f"{described(answer.source, answer.file, answer.caption)}"
        )
    return lines


def queries_table(
    queries: Sequence[str], answers: Sequence[Sequence[Answer]], promised: Sequence[Promised]
) -> list[str]:
    """A line per query: how many results are shown, and the nearest one, also if nothing matches."""
    right = any(one.probabilities for one in promised)
    rows = [("query", "shown", "right" if right else "score", "nearest")]
    for place, (query, found) in enumerate(zip(queries, answers, strict=True)):
        count, nearest = promised[place].matches if promised else len(found), ("-", "-")
        for one in found[:1]:
            value = f"{one.probability:6.1%}" if right else f"{one.score:7.4f}"
            nearest = value, described(one.key, None, one.caption and _shortened(one.caption))
        rows.append((_shortened(query), str(count or "nothing"), *nearest))
    return [*align(rows, 4)]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def described(source: str, file: str | None, caption: str | None) -> str:
    """A row's source, with its file name and its caption if they are known, in one line."""
    return printable("  ".join(filter(None, [source, file, None if caption is None else f"“{caption}”"])))
