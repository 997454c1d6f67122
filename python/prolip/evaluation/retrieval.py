"""Suite `retrieval`: Flickr, COCO 1K and 5K, CxC and ECCV Caption, or the user's own images and captions.

N images, M captions, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import chain, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prolip.datasets.data_set import DataSet, embed_set
from prolip.datasets.labels import caption_members, read_captions
from prolip.errors import UserError
from prolip.evaluation.calibrate_search import embed_pairs, find_queries, search_figures
from prolip.evaluation.config import RetrievalOptions
from prolip.evaluation.evaluate import evaluate_data
from prolip.evaluation.results import Row, RowId, SuiteResult, TaskCache, TaskResult, mean_row, row_of_items
from prolip.evaluation.stored import open_data
from prolip.gaussian import Gaussian
from prolip.inference.model import Model
from prolip.metrics.coco import CocoTruth, Pairs, Shares, coco_shares
from prolip.metrics.config import Score
from prolip.metrics.retrieval import RECALL_AT, group_ranks
from prolip.metrics.uncertainty import uncertainty_bins

_SETS = {"coco_1k": "COCO 1K", "coco_5k": "COCO 5K", "cxc": "CxC", "eccv": "ECCV Caption"}
_WAYS = ("image_to_text", "text_to_image")


def run_retrieval(model: Model, options: RetrievalOptions, cache: TaskCache) -> SuiteResult:
    """Evaluate every data set."""
    opened = partial(open_data, store=options.store, selection=options.selection)
    lacks = "figures by sampled distance"
    return evaluate_data(
        "retrieval",
        model,
        options,
        options.data,
        cache,
        opened,
        search_set,
        model.search_calibration,
        needs_variances=lacks,
    )


def search_set(model: Model, data: DataSet, options: RetrievalOptions) -> TaskResult:
    """Of one data set."""
    return retrieve_set(model, data, options)


def retrieve_set(model: Model, data: DataSet, options: RetrievalOptions, *, promises: bool = True) -> TaskResult:
    """Recall and promises, of classes promises alone; with COCO's ids, all measures of the four COCO benchmarks too."""
    scores: list[Score] = ["mean", "csd"] if model.has_variances else ["mean"]
    if options.caption_key == "cls":
        images, classes = embed_pairs(model, data, options.batch_size, "cls")
        queries = find_queries(images, classes, model.encoder.embed_captions)
        return search_figures(model, images, queries, scores, options)
    truth = None if options.image_id_key is None else load_truth()
    where = (options.caption_key, options.image_id_key, options.caption_ids_key)
    embedded = embed_set(model, data, options.batch_size, *caption_members(*where))
    found = read_captions(data, embedded, *where)
    captions = list(chain.from_iterable(found.texts))
    texts, place_of = model.encoder.embed_captions(captions), {text: place for place, text in enumerate(captions)}
    image_of_text = torch.tensor([place for place, some in enumerate(found.texts) for _ in some])
    rows: list[Row] = []
    if truth is not None:
        caption_ids = list(chain.from_iterable(found.caption_ids))
        for score in scores:
            figures = coco_shares(embedded.gaussian, found.image_ids, texts, caption_ids, truth, score)
            rows += coco_rows(figures, score, main=score == scores[-1])
    rows += recall_rows(embedded.gaussian, texts, image_of_text, scores)
    if not promises:
        return TaskResult(rows=rows)
    queries = find_queries(
        embedded.gaussian, found.texts, lambda some: texts.rows(torch.tensor([place_of[text] for text in some]))
    )
    searched = search_figures(model, embedded.gaussian, queries, scores, options)
    return replace(searched, rows=rows + searched.rows)


def recall_rows(images: Gaussian, texts: Gaussian, image_of_text: Tensor, scores: Sequence[Score]) -> list[Row]:
    """Recall at 1, 5 and 10 in both directions by every score; the main figure is the mean of R@1 by means alone.

    Images are [N, D], texts [M, D] with unit means; `image_of_text` is i64 [M]. The scores must include `mean`.
    """
    rows, own = [], torch.arange(len(images.mean))
    for score in scores:
        both = (
            group_ranks(images, texts, own, image_of_text, score),
            group_ranks(texts, images, image_of_text, own, score),
        )
        for way, ranks in zip(_WAYS, both, strict=True):
            rows += [row_of_items(RowId("recall_at", way=way, by=score, at=k), (ranks < k).double()) for k in RECALL_AT]
    firsts = [row for row in rows if (row.id.at, row.id.by) == (1, "mean")]
    return [mean_row(RowId("mean_recall"), firsts, len(images.mean)), *rows]


def coco_rows(figures: Mapping[str, Shares], score: Score, *, main: bool) -> list[Row]:
    """Of `coco_shares`; `main`: whether R@1 and mAP@R are main figures.

    By sampled distance also their correlation with the queries' uncertainty, over ten bins of a benchmark's queries.
    (The released code bins all images or captions of the test set.)
    """
    rows = []
    for (which, data), way in product(_SETS.items(), _WAYS):
        for measure, at in (*(("recall_at", k) for k in RECALL_AT), ("r_precision", None), ("map_at_r", None)):
            figure = figures.get(f"{which}_{way}_{measure if at is None else f'R@{at}'}")
            if figure is None:
                continue
            id, first = RowId(measure, data=data, way=way, by=score, at=at), at == 1 or measure == "map_at_r"
            statistic = "mean" if figure.folds is None else "mean_per_group"
            rows.append(row_of_items(id, figure.shares, figure.folds, statistic=statistic, main=first and main))
            if first and score == "csd" and figure.uncertainty is not None:
                named = "map_at_r_correlation" if at is None else "recall_correlation"
                value = uncertainty_bins(figure.uncertainty, figure.shares).pearson
                rows.append(Row(id=replace(id, measure=named), value=value, num_items=len(figure.shares)))
    return rows


def load_truth() -> CocoTruth:
    """Which captions of COCO's test set match which images, by COCO, CxC and ECCV Caption; needs eccv-caption."""
    spec = find_spec("eccv_caption")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("image_id_key", "COCO, CxC and ECCV Caption need eccv-caption; pip install 'prolip[eval]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"

    def pairs(whose: str) -> Pairs:
        ways = (f"{whose}_{way}.json" for way in ("image_to_caption", "caption_to_image"))
        read = [json.loads((folder / name).read_text(encoding="utf-8")) for name in ways]
        return Pairs(*({int(query): list(map(int, rights)) for query, rights in one.items()} for one in read))

    order = np.load(folder / "coco_test_ids.npy").tolist()
    return CocoTruth(pairs("original"), pairs("cxc"), pairs("eccv"), order)
