"""Suite `retrieval`: Flickr, COCO 1K and 5K, CxC and ECCV Caption, or the user's own images and captions.

N images, M captions, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.evaluation.caption_sets import caption_members, captions_of, name_sources, open_captioned
from prolip.evaluation.coco_pairs import load_truth
from prolip.evaluation.config import RetrievalOptions
from prolip.evaluation.each_set import evaluate_sets
from prolip.evaluation.folders import TaskFolder
from prolip.evaluation.results import Row, SuiteResult, TaskCache, TaskResult, mean_row, row_of_items
from prolip.gaussian import Gaussian
from prolip.metrics.coco import Shares, coco_shares
from prolip.metrics.config import Score
from prolip.metrics.retrieval import RECALL_AT, group_ranks
from prolip.pretrained.model import Model

_SETS = {"coco_1k": "COCO 1K", "coco_5k": "COCO 5K", "cxc": "CxC", "eccv": "ECCV Caption"}
_WAYS = {"image_to_text": "image to caption", "text_to_image": "caption to image"}
_FIGURES = {"r_precision": "R-precision", "map_at_r": "mAP@R"}


def run_retrieval(model: Model, options: RetrievalOptions, cache: TaskCache) -> SuiteResult:
    """Evaluate every data set.

    Raises:
        UserError: none could be evaluated.
    """

    def evaluate(name: str, source: str, fingerprint: str) -> TaskResult:
        folder = open_captioned(source, cache.folder.with_name("data"), options.store)
        keys = [options.caption_key, options.image_id_key, options.caption_ids_key]
        settings = {"model": fingerprint, "data": folder.fingerprint, "keys": keys}
        return cache.get_or_run(name, settings, partial(retrieve_set, model, name, folder, options))

    return evaluate_sets("retrieval", model, name_sources(options.data), evaluate, "figures by sampled distance")


def retrieve_set(model: Model, name: str, folder: TaskFolder, options: RetrievalOptions) -> TaskResult:
    """Recall on a data set; with COCO's ids, all measures of the four COCO benchmarks too.

    Raises:
        UserError: an id occurs twice, images of COCO's test set are missing, or eccv-caption is not installed.
        DataError: an image has no caption or no id, or too many cannot be read.
    """
    truth = None if options.image_id_key is None else load_truth()
    where = (options.caption_key, options.image_id_key, options.caption_ids_key)
    keep = caption_members(*where)
    embedded = embed_shards(model, folder.shards, batch_size=options.batch_size, keep=keep, store=folder.store)
    found = captions_of(folder, embedded, *where)
    texts = embed_captions(model, list(chain.from_iterable(found.texts)))
    image_of_text = torch.tensor([place for place, some in enumerate(found.texts) for _ in some])
    scores: list[Score] = ["mean", "csd"] if model.has_csd else ["mean"]
    rows = recall_rows(name, embedded.gaussian, texts, image_of_text, scores)
    if truth is not None and found.image_ids is not None and found.caption_ids is not None:
        caption_ids = list(chain.from_iterable(found.caption_ids))
        for score in scores:
            figures = coco_shares(embedded.gaussian, found.image_ids, texts, caption_ids, truth, score)
            rows += [coco_row(key, figure, score) for key, figure in figures.items()]
    return TaskResult(rows=rows)


def recall_rows(
    task: str, images: Gaussian, texts: Gaussian, image_of_text: Tensor, scores: Sequence[Score]
) -> list[Row]:
    """Recall at 1, 5 and 10 in both directions by every score; the main figure is the mean of R@1 by means alone.

    Images are [N, D], texts [M, D] with unit means; `image_of_text` is i64 [M]. The scores must include `mean`.
    """
    rows, own = [], torch.arange(len(images.mean))
    for score in scores:
        suffix = ", by sampled distance" if score == "csd" else ""
        for way, ranks in (
            ("image to caption", group_ranks(images, texts, own, image_of_text, score)),
            ("caption to image", group_ranks(texts, images, image_of_text, own, score)),
        ):
            rows += [row_of_items(task, f"{way} R@{k}{suffix}", (ranks < k).double()) for k in RECALL_AT]
    firsts = [row for row in rows if row.metric in {"image to caption R@1", "caption to image R@1"}]
    return [mean_row(task, "mean recall@1", firsts, len(images.mean)), *rows]


def coco_row(key: str, figure: Shares, score: Score) -> Row:
    """The row of a measure of `coco_shares`, whose keys are SET_DIRECTION_MEASURE."""
    (which,) = [name for name in _SETS if key.startswith(f"{name}_")]
    way, name = next((way, key.removeprefix(f"{which}_{way}_")) for way in _WAYS if key.startswith(f"{which}_{way}_"))
    suffix = ", by sampled distance" if score == "csd" else ""
    return row_of_items(
        _SETS[which],
        f"{_WAYS[way]} {_FIGURES.get(name, name)}{suffix}",
        figure.shares,
        figure.folds,
        statistic="mean" if figure.folds is None else "mean_per_group",
        main=name in {"R@1", "map_at_r"} and score == "mean",
    )
