"""Suites `hierarcaps` and `hierarimgs`: walks through hierarchies, inclusion and uncertainty by level.

N hierarchies, L levels from general to specific, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
from torch import Tensor

from prolip.embeddings.embed import embed_captions, embed_shards
from prolip.errors import UserError
from prolip.evaluation.config import HierarcapsOptions, HierarimgsOptions
from prolip.evaluation.csv_datasets import files_of, open_images, read_levels
from prolip.evaluation.folders import stamps
from prolip.evaluation.results import Row, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.gaussian import Gaussian, inclusion_score
from prolip.metrics.config import InclusionForm, Root, TraversalConfig
from prolip.metrics.hierarchy import including_items, mean_root, string_ids, traverse
from prolip.metrics.statistics import spearman
from prolip.pretrained.model import Model, missing_csd

NEEDS_VARIANCES = "inclusion, uncertainty by level, and walks to the including caption"


class Hierarchies(NamedTuple):
    """Queries, and the hierarchies of items that they walk through: HierarCaps's are captions, HierarImgs's images."""

    queries: Gaussian
    """[N, D], unit means."""
    items: Gaussian
    """[N, L, D], unit means, the most general level first."""
    ids: Tensor
    """i64 [N, L]; equal ids are equal items (`string_ids`)."""
    root: Tensor
    """[D], such as the mean of the empty caption, or `mean_root` of images."""


def run_hierarcaps(model: Model, options: HierarcapsOptions, cache: TaskCache) -> SuiteResult:
    """All walks of HierarCaps.

    Raises:
        UserError: the table, or an image that it names, is missing or cannot be read.
    """

    def embed() -> Hierarchies:
        captions, addresses = read_levels(_table(options.data), "captions", "image_url")
        names = [Path(urlparse(address).path).name for address in addresses]
        images = _embed_images(model, options.data, cache, names, options.batch_size)
        flat = embed_captions(model, list(chain.from_iterable(captions)))
        root = embed_captions(model, [""]).mean[0]
        return Hierarchies(images, flat.unflatten(len(captions), -1), string_ids(captions), root)

    return _run("HierarCaps", model, options, cache, embed)


def run_hierarimgs(model: Model, options: HierarimgsOptions, cache: TaskCache) -> SuiteResult:
    """All walks of HierarImgs.

    Raises:
        UserError: the table, or an image that it names, is missing or cannot be read.
    """

    def embed() -> Hierarchies:
        images, captions = read_levels(_table(options.data), "images", "caption")
        flat = _embed_images(model, options.data, cache, list(chain.from_iterable(images)), options.batch_size)
        items = flat.unflatten(len(captions), -1)
        return Hierarchies(embed_captions(model, captions), items, string_ids(images), mean_root(items))

    return _run("HierarImgs", model, options, cache, embed)


def walk_rows(name: str, data: Hierarchies, walk: TraversalConfig | None = None, *, with_var: bool = True) -> list[Row]:
    """Precision, recall and any-recall of the walks to every root; with variances, `level_rows` too."""
    kinds: list[tuple[str, Root, InclusionForm]] = [("root", "text", "official")]
    if with_var:
        kinds += [
            (f"{'including item' if root == 'inclusion' else 'root and including item'} ({form})", root, form)
            for root in ("inclusion", "both")
            for form in ("official", "exact")
        ]
    rows = []
    for end, root, form in kinds:
        config = dataclasses.replace(walk or TraversalConfig(), root=root, inclusion=form)
        including = None if root == "text" else including_items(data.queries, data.items.flatten(), form)
        found = traverse(data.queries, data.items, data.ids, data.root, config, including=including)
        for figure, share in found._asdict().items():
            metric = f"{figure.replace('_', ' ')}, to the {end}"
            rows.append(row_of_items(name, metric, share, main=root == "text" and figure != "any_found"))
    return rows + level_rows(name, data) if with_var else rows


def level_rows(name: str, data: Hierarchies) -> list[Row]:
    """How often queries lie inside their own item of each level, and whether uncertainty falls from level to level."""
    rows = []
    for level in range(data.items.mean.shape[1]):
        own = Gaussian(data.items.mean[:, level], data.items.log_var[:, level])
        inside = (inclusion_score(data.queries, own).double().sum(dim=1) > 0).double()
        rows.append(row_of_items(name, f"lies in its level {level} (0 is the most general)", inside))
    uncertainty = data.items.total_var.double()
    falls = (uncertainty[:, :-1] > uncertainty[:, 1:]).all(dim=1).double()
    rows.append(row_of_items(name, "uncertainty falls at every level", falls))
    generality = -torch.arange(uncertainty.shape[1]).double().expand_as(uncertainty)
    rows.append(
        Row(
            task=name,
            metric="rank correlation of uncertainty with generality",
            value=spearman(uncertainty.flatten(), generality.flatten()),
            num_items=len(uncertainty),
            unit="number",
        )
    )
    return rows


def _run(
    title: str,
    model: Model,
    options: HierarcapsOptions | HierarimgsOptions,
    cache: TaskCache,
    embed: Callable[[], Hierarchies],
) -> SuiteResult:
    fingerprint = model.fingerprint()
    settings = {
        "model": fingerprint,
        "data": stamps(files_of(options.data)),
        "walk": dataclasses.asdict(options.walk),
    }

    def run() -> TaskResult:
        return TaskResult(rows=walk_rows(title, embed(), options.walk, with_var=model.has_csd))

    suite = title.lower()
    found = cache.get_or_run(suite, settings, run)
    notes = [] if model.has_csd else [f"{NEEDS_VARIANCES}: {missing_csd(model)}"]
    return SuiteResult(suite=suite, model=model.name, fingerprint=fingerprint, rows=found.rows, notes=notes)


def _table(folder: Path) -> Path:
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise UserError(f"{folder} has {len(tables)} tables (.csv): it must have one")
    return tables[0]


def _embed_images(model: Model, folder: Path, cache: TaskCache, names: Sequence[str], batch_size: int) -> Gaussian:
    """Gaussians of the named images, [N, D]; an image that is named several times is embedded once."""
    distinct = list(dict.fromkeys(names))
    shard = open_images(folder, cache.folder.with_name("data"), distinct)
    embedded = embed_shards(model, shard.shards, batch_size=batch_size, store=shard.store)
    places = {distinct[int(key)]: row for row, key in enumerate(embedded.keys)}
    lost = [name for name in distinct if name not in places]
    if lost:
        raise UserError(f"{folder}: {len(lost)} images cannot be read, such as {lost[0]}")
    return embedded.gaussian.rows(torch.tensor([places[name] for name in names]))
