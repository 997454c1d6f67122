"""Calibrate searches by captioned images or decoys (`prolip calibrate search`), and measure them (suite `retrieval`).

N images, Q queries, K nearest images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prolip.calibration.calibration import Subject
from prolip.calibration.config import QueryKind
from prolip.calibration.search import DEPTH, KnownQueries, SearchCalibration, fit_queries, save_search_calibration
from prolip.datasets.data_set import DataSet, embed_set
from prolip.datasets.labels import caption_members, read_captions
from prolip.embeddings.search import RIVALS, nearest, posterior
from prolip.embeddings.storage import Part, complete_parts
from prolip.errors import check
from prolip.evaluation.classification import embed_labelled
from prolip.evaluation.config import CalibrateSearchOptions, RetrievalOptions
from prolip.evaluation.results import Chart, RowId, TaskResult, judged, row_of_items
from prolip.evaluation.stored import check_maker, open_data, open_model
from prolip.gaussian import Gaussian
from prolip.inference.model import Model
from prolip.metrics.config import Score
from prolip.metrics.retrieval import count_within, nearest_right_and_wrong
from prolip.report.charts import Line, line_chart
from prolip.report.words import spoken
from prolip.store.atomic_writes import check_writable
from prolip.store.file_contents import read_text
from prolip.store.folder import Folder

_SHARES = (0.8, 0.9, 0.95)
_FITTED = 10
"""Nearest right and wrong images of a query to which probabilities are fitted."""


class Queries(NamedTuple):
    """With known right images."""

    gaussian: Gaussian
    """[Q, D]"""
    right: list[list[int]]
    """Of each query, at least one."""
    itself: Tensor | None = None
    """i64 [Q], the image that is the query; None for text queries."""

    def scores(self, images: Gaussian, score: Score, count: int = _FITTED) -> Tensor:
        """`nearest_right_and_wrong` among these images, f64 [2, Q, K]."""
        return nearest_right_and_wrong(self.gaussian, images, self.right, score, itself=self.itself, count=count)


def find_queries(
    images: Gaussian, texts: Sequence[Sequence[str]], encode: Callable[[list[str]], Gaussian]
) -> dict[QueryKind, Queries]:
    """The distinct captions of images, and the images that share a caption with another one, as queries.

    Args:
        images: [N, D].
        texts: the captions of each image.
        encode: embeds captions.
    """
    owners: dict[str, dict[int, None]] = {}
    for place, some in enumerate(texts):
        for text in some:
            owners.setdefault(text, {})[place] = None
    others = [
        list(dict.fromkeys(other for text in some for other in owners[text] if other != place))
        for place, some in enumerate(texts)
    ]
    shared = torch.tensor([place for place, some in enumerate(others) if some], dtype=torch.long)
    return {
        "text": Queries(encode(list(owners)), list(map(list, owners.values()))),
        "image": Queries(images.rows(shared), [some for some in others if some], shared),
    }


def embed_pairs(model: Model, data: DataSet, batch_size: int, caption_key: str) -> tuple[Gaussian, list[list[str]]]:
    """Images [N, D], and the captions of each, or its class's name for the key `cls`."""
    if caption_key == "cls":
        images, labels = embed_labelled(model, data, batch_size)
        return images, [[data.classnames[label]] for label in labels.tolist()]
    embedded = embed_set(model, data, batch_size, *caption_members(caption_key))
    return embedded.gaussian, read_captions(data, embedded, caption_key).texts


def run_calibrate_search(options: CalibrateSearchOptions) -> list[str]:
    """Calibrate searches, write the file; returns the lines to print.

    Raises:
        UserError: the model, the data, the decoys or the embeddings cannot be used.
        DataError: an image has no caption, or too many cannot be read.
    """
    check_writable(options.path)
    model = open_model(
        options.checkpoint, tokenizer=options.tokenizer, device=options.device, precision=options.precision
    )
    score = options.score
    check(score == "mean" or model.has_variances, "score", f"must be mean: {model.name} has no sampled distance", score)
    parts: list[Part] = []
    number = 0
    if options.embeddings is not None:
        manifest, parts = complete_parts(Folder(options.embeddings), "image")
        check_maker(manifest, model, "embeddings", options.embeddings)
        number = manifest.rows["image"]
    if options.decoys is not None:
        found, lines = _of_decoys(model, options, options.decoys, parts, number)
    else:
        found, lines = _of_captions(model, options, options.data or "", parts, number)
    save_search_calibration(found, options.path)
    return [
        *lines,
        f"This holds for queries and images like those of {found.subject.data}, and for no others. In a collection of "
        f"more than {found.num_images:,} images, less is shown.",
    ]


def _of_decoys(
    model: Model, options: CalibrateSearchOptions, file: Path, parts: Sequence[Part], number: int
) -> tuple[SearchCalibration, list[str]]:
    texts = [*dict.fromkeys(" ".join(line.split()) for line in read_text(file).split("\n") if line.strip())]
    check(texts, "decoys", "must have a query in a line", file)
    hits = nearest(parts, model.encoder.embed_captions(texts).mean.numpy(), DEPTH, options.score)
    best = torch.tensor([some[0].score for some in hits], dtype=torch.float64)
    decoys, none = KnownQueries(best[:0], best, best[:0]), KnownQueries(*best.new_zeros(3, 0))
    found = SearchCalibration(
        subject=Subject(model.name, model.fingerprint(), f"{file} and {options.embeddings}", [], []),
        score=options.score,
        num_images=number,
        text=decoys,
        image=none,
        words=[len(text.split()) for text in texts],
        depth_scores=[some[-1].score for some in hits],
    )
    lines = [f"{len(texts):,} decoys, {number:,} images"]
    for share in _SHARES:
        shown = decoys.limits(None, 1 - share).shown
        when = f"if the best score is above {shown:.4f}" if shown < math.inf else "never: there are too few decoys"
        lines.append(f"--max_wrong {1 - share:.2g}: something is shown {when}")
    return found, lines


def _of_captions(
    model: Model, options: CalibrateSearchOptions, source: str, parts: Sequence[Part], number: int
) -> tuple[SearchCalibration, list[str]]:
    data, score = open_data(source, options.store), options.score
    caption_key = options.caption_key or ("cls" if data.samples and data.classnames else "txt")
    images, texts = embed_pairs(model, data, options.batch_size, caption_key)
    known, lines = {}, []
    asked = find_queries(images, texts, model.encoder.embed_captions)
    for kind, queries in asked.items():
        right, wrong = queries.scores(images, score)
        if parts:
            for row, hits in enumerate(nearest(parts, queries.gaussian.mean.numpy(), wrong.shape[1], score)):
                wrong[row, : len(hits)] = torch.tensor([hit.score for hit in hits])
        known[kind] = fit_queries(right, wrong, absent_share=options.absent_share, seed=options.seed)
        lines += describe(kind, known[kind], queries, images, score)
    subject = Subject(model.name, model.fingerprint(), data.source, [], [])
    number = number or len(images.mean)
    found = SearchCalibration(subject=subject, score=score, num_images=number, text=known["text"], image=known["image"])
    return found, lines


def describe(kind: QueryKind, known: KnownQueries, queries: Queries, images: Gaussian, score: Score) -> list[str]:
    """What the promises cost, and where both cannot hold."""
    if not queries.right:
        return [f"no {kind} queries: no two images share a caption"]
    first = float((known.right > known.wrong).double().mean())
    lines = [f"{len(queries.right):,} {kind} queries, {len(images.mean):,} images; the first is right for {first:.1%}"]
    for share in _SHARES:
        within = torch.full((len(queries.right),), known.limits(share, None).within).double()
        size = count_within(queries.gaussian, images, within, score).double().mean()
        shown, both = (known.limits(some, 1 - share).contained or 0.0 for some in (None, share))
        lines.append(
            f"--contains_right {share:g}: {size:.1f} images on average; --max_wrong {1 - share:.2g}: something is "
            f"shown for {shown:.1%} of the queries that have a right image; with both, {both:.1%} of these get one"
            + (f", not {share:.0%}" if both < share else "")
        )
    return lines


def search_figures(
    model: Model,
    images: Gaussian,
    asked: Mapping[QueryKind, Queries],
    scores: Sequence[Score],
    options: RetrievalOptions,
) -> TaskResult:
    """What queries find and promise, by every score; the global cutoff of the cosine is that by `mean`.

    Without a calibration of the model, each half of the queries, at least two of a kind, is calibrated by the other.
    """
    result = TaskResult(rows=[])
    for kind, queries in asked.items():
        if len(queries.right) > 1:
            _add_figures(result, model, images, kind, queries, scores, options)
    return result


def _add_figures(
    result: TaskResult,
    model: Model,
    images: Gaussian,
    kind: QueryKind,
    queries: Queries,
    scores: Sequence[Score],
    options: RetrievalOptions,
) -> None:
    count, share, asked = len(queries.right), options.absent_share, (options.contains_right, options.max_wrong)
    way = f"{kind}_to_image"
    draws = torch.rand(2, count, generator=torch.Generator().manual_seed(options.seed))
    absent, first = draws[0] < share, draws[1].argsort().argsort() < count // 2
    both, number = torch.arange(2 * count) < count, torch.arange(1, count + 1)
    lines = []
    for score in scores:
        near = queries.scores(images, score, RIVALS)
        rivals = near.transpose(0, 1).flatten(1).topk(RIVALS).values.tolist()
        likely = torch.tensor([posterior(some, model.logit_scale)[0] for some in rivals], dtype=torch.float64)
        right, wrong = near[:, :, 0]
        best, hit = torch.maximum(right, wrong), right > wrong
        chosen, correct = wrong.where(absent, best), hit & ~absent
        own = model.search_calibration
        own = own if own is not None and own.score == score and len(getattr(own, kind).wrong) else None
        labelled = None if own is None or own.words else own  # decoys only say when nothing is shown
        part = 1.0 if labelled is None else labelled.part(len(images.mean))
        shown, within, probability, first_probability = torch.zeros(4, count, dtype=torch.float64)
        for half in (first, ~first):
            other = near[:, ~half, :_FITTED]
            first_probability[half] = fit_queries(*other[:, :, :1], absent_share=0).probability(best[half])
            known = (
                fit_queries(*other, absent_share=share, seed=options.seed) if labelled is None else labelled.known(kind)
            )
            shown[half], within[half], _ = known.limits(*asked, part)
            probability[half] = known.probability(chosen[half], part)
        if own is not None:
            shown[:] = own.limits(kind, len(images.mean), max_wrong=asked[1]).shown
        means = [
            ("contained", asked[0], right >= within),
            ("nothing_in_vain", asked[1], wrong <= shown),
            ("shown_if_right", asked[1], best > shown),
            ("contained_within_limits", None, (best > shown) & (right >= within)),
            ("contained_images", asked[0], count_within(queries.gaussian, images, within, score)),
        ]
        rows = [row_of_items(RowId(measure, way=way, by=score, at=at), items) for measure, at, items in means]
        if own is not None:
            for place, promised in enumerate((asked[0], 1 - asked[1])):
                if place or labelled is not None:
                    rows[place] = judged(replace(rows[place], main=True), promised, len(own.known(kind).wrong))
        by_posterior = f"{score}_posterior"
        order = [
            ("right_is_there_auroc", score, None, "auroc", torch.cat([best, wrong]), both),
            ("first_is_right_auroc", score, None, "auroc", best, hit),
            ("first_is_right_auroc", by_posterior, None, "auroc", likely, hit),
            ("first_is_right_error", score, None, "equal_mass_error", first_probability, hit),
            ("first_is_right_error", by_posterior, None, "equal_mass_error", likely, hit),
            ("search_risk_coverage", score, share, "risk_coverage", -chosen, correct),
            ("calibration_error", score, None, "equal_mass_error", probability, correct),
        ]
        for measure, by, at, statistic, items, labels in order:
            rows.append(row_of_items(RowId(measure, way=way, by=by, at=at), items, labels, statistic=statistic))
        result.rows.extend(rows)
        wrongs = (~correct)[chosen.argsort(descending=True, stable=True)].double().cumsum(0)
        lines.append(Line(spoken(score), (number / count).tolist(), (wrongs / number).tolist()))
    if model.has_variances:
        unsure = queries.gaussian.total_var.double()
        result.rows.append(
            row_of_items(RowId("first_is_right_auroc", way=way, by="uncertainty"), -unsure, hit, statistic="auroc")
        )
        sure = unsure.argsort().argsort() < count // 2
        for half, measure in ((sure, "certain_half_recall"), (~sure, "uncertain_half_recall")):
            result.rows.append(row_of_items(RowId(measure, way=way), hit[half]))
    text = f"Share of wrong first images; {share:.0%} of the {kind} queries have no right image."
    drawn = line_chart(
        "Risk-coverage", text, lines, x_label="share of the queries that is answered", y_scale="share", percent=True
    )
    result.charts.append(Chart(title=f"risk-coverage, {kind} queries", text=text, svg=drawn))
