"""Retrieval between pictures and captions: Flickr, COCO 1K and 5K, CxC and ECCV Caption, or pairs of one's own."""

from __future__ import annotations

import sys
from functools import partial
from itertools import chain

import torch
from tqdm import tqdm

from prolip.data import DataError
from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.eval.coco import Shares, coco_shares, load_truth
from prolip.eval.config import Score
from prolip.pretrained.model import EvalModel
from prolip.suites.captioned import caption_members, captions_of, name_sources, open_captioned
from prolip.suites.config import RetrievalOptions
from prolip.suites.folders import TaskFolder
from prolip.suites.recall import recall_rows
from prolip.suites.rows import Finished, Row, SuiteResult, TaskResult, row_of_items

NO_DISTANCE = "figures by sampled distance: the model has no variances"
_SETS = {"coco_1k": "COCO 1K", "coco_5k": "COCO 5K", "cxc": "CxC", "eccv": "ECCV Caption"}
_WAYS = {"image_to_text": "picture to caption", "text_to_image": "caption to picture"}
_FIGURES = {"r_precision": "R-precision", "map_at_r": "mAP@R"}


def run_retrieval(model: EvalModel, options: RetrievalOptions, finished: Finished) -> SuiteResult:
    """Every data set.

    Raises:
        ValueError: none could be evaluated.
    """
    fingerprint = model.fingerprint()
    rows: list[Row] = []
    notes: list[str] = []
    for name, source in tqdm(name_sources(options.data).items(), desc=model.name, unit="set", file=sys.stderr):
        try:
            folder = open_captioned(source, finished.folder.with_name("data"))
            keys = [options.caption_key, options.image_id_key, options.caption_ids_key]
            settings = {"model": fingerprint, "data": folder.fingerprint, "keys": keys}
            rows += finished.task(name, settings, partial(retrieve_set, model, name, folder, options)).rows
        except (ValueError, DataError, OSError) as error:
            notes.append(f"{name}: {error}")
    if not rows:
        raise ValueError("; ".join(notes))
    if not model.has_variances:
        notes.append(NO_DISTANCE)
    return SuiteResult(suite="retrieval", model=model.name, fingerprint=fingerprint, rows=rows, notes=notes)


def retrieve_set(model: EvalModel, name: str, folder: TaskFolder, options: RetrievalOptions) -> TaskResult:
    """Recalls of a data set, and what COCO's ids allow.

    Raises:
        ValueError: ids stand twice, pictures of COCO's test set are missing, or the pairs are not installed.
        DataError: a picture has no caption or no id, or too many cannot be read.
    """
    truth = None if options.image_id_key is None else load_truth()
    where = (options.caption_key, options.image_id_key, options.caption_ids_key)
    embedded = embed_shards(model, folder.shards, batch_size=options.batch_size, keep=caption_members(*where))
    found = captions_of(folder, embedded, *where)
    texts = embed_captions(model, list(chain.from_iterable(found.texts)))
    image_of_text = torch.tensor([place for place, some in enumerate(found.texts) for _ in some])
    scores: list[Score] = ["mean", "csd"] if model.has_variances else ["mean"]
    rows = recall_rows(name, embedded.gaussian, texts, image_of_text, scores)
    if truth is not None and found.image_ids is not None and found.caption_ids is not None:
        caption_ids = list(chain.from_iterable(found.caption_ids))
        for score in scores:
            figures = coco_shares(embedded.gaussian, found.image_ids, texts, caption_ids, truth, score)
            rows += [coco_row(key, figure, score) for key, figure in figures.items()]
    return TaskResult(rows=rows)


def coco_row(key: str, figure: Shares, score: Score) -> Row:
    """A figure of `coco_shares`, whose keys are SET_WAY_FIGURE."""
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
