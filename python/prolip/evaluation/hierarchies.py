"""Suites `hierarcaps` and `hierarimgs`: walks through hierarchies, inclusion and uncertainty by level.

N hierarchies, L levels from general to specific, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
from torch import Tensor

from prolip.datasets.data_set import embed_set, find_named, open_images, read_levels
from prolip.errors import UserError
from prolip.evaluation.config import HierarcapsOptions, HierarimgsOptions
from prolip.evaluation.evaluate import Prepared, evaluate_sets
from prolip.evaluation.results import Chart, Row, RowId, SuiteResult, TaskCache, TaskResult, row_of_items
from prolip.gaussian import Gaussian, inclusion_score
from prolip.images.preprocess import Preprocess
from prolip.inference.model import Model
from prolip.metrics.config import InclusionForm, Root, TraversalConfig
from prolip.metrics.hierarchy import entailment, including_items, items_on_walk, mean_root, string_ids, traverse
from prolip.metrics.statistics import spearman
from prolip.report.page import Tile, gallery

_Options = HierarcapsOptions | HierarimgsOptions
_NUM_DRAWN = 4
"""Walks to draw."""
NEEDS_VARIANCES = "inclusion, uncertainty by level, and walks to the including caption"


class Hierarchies(NamedTuple):
    """Queries, and the hierarchies that they walk through: HierarCaps's are captions, HierarImgs's images."""

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
    levels, addresses = _read_table(options, "captions", "image_url")

    def embed(images: Gaussian) -> Hierarchies:
        captions = model.encoder.embed_captions(list(chain.from_iterable(levels))).unflatten(len(levels), -1)
        return Hierarchies(images, captions, string_ids(levels), model.encoder.embed_captions([""]).mean[0])

    names = [Path(urlparse(address).path).name for address in addresses]
    return _run("HierarCaps", model, options, cache, names, embed)


def run_hierarimgs(model: Model, options: HierarimgsOptions, cache: TaskCache) -> SuiteResult:
    """All walks of HierarImgs."""
    levels, captions = _read_table(options, "images", "caption")

    def embed(images: Gaussian) -> Hierarchies:
        items = images.unflatten(len(levels), -1)
        return Hierarchies(model.encoder.embed_captions(captions), items, string_ids(levels), mean_root(items))

    names = list(chain.from_iterable(levels))

    def draw(data: Hierarchies) -> list[Chart]:
        text = "The images nearest to the way from the caption's nearest image to the root, which is the mean of all."
        charts = [Chart(group="Walks", text=text, svg="")]
        for row in range(0, len(levels), -(-len(levels) // _NUM_DRAWN)):
            query, items = data.queries.mean[row : row + 1], data.items.flatten().mean
            steps = items_on_walk(query, items, data.root[None], options.walk)[0].tolist()
            met = list(dict.fromkeys(names[step] for step in steps))
            tiles = []
            for name, read in zip(met, find_named(options.data, met), strict=True):
                tiles.append(
                    Tile(Preprocess().thumbnail(read(), 64), name, [("its own", True)] * (name in levels[row]))
                )
            charts.append(Chart(group="Walks", title=captions[row], text="", svg=gallery(tiles)))
        return charts

    return _run("HierarImgs", model, options, cache, names, embed, draw)


def walk_rows(data: Hierarchies, walk: TraversalConfig | None = None, *, with_var: bool = True) -> list[Row]:
    """Precision, recall and any-recall of the walks to every root; with variances, `level_rows` too.

    The main walk is that of the paper's Table 2; without variances, the one to the root.
    """
    kinds: list[tuple[str, Root, InclusionForm]] = [
        ("both_official", "both", "official"),
        ("both_exact", "both", "exact"),
        ("inclusion_official", "inclusion", "official"),
        ("inclusion_exact", "inclusion", "exact"),
        ("root", "text", "official"),
    ]
    rows: list[Row] = []  # precision and recall of the first walk are the main figures
    for kind, root, form in kinds if with_var else kinds[-1:]:
        config = dataclasses.replace(walk or TraversalConfig(), root=root, inclusion=form)
        including = None if root == "text" else including_items(data.queries, data.items.flatten(), form)
        found = traverse(data.queries, data.items, data.ids, data.root, config, including=including)
        for figure, share in found._asdict().items():
            rows.append(row_of_items(RowId(f"walk_{figure}", by=kind), share, main=len(rows) < 2))
    return rows + level_rows(data) if with_var else rows


def level_rows(data: Hierarchies) -> list[Row]:
    """How often queries lie inside their own item of each level; whether uncertainty falls from level to level; PEP."""
    rows = []
    for level in range(data.items.mean.shape[1]):
        own = Gaussian(data.items.mean[:, level], data.items.log_var[:, level])
        inside = inclusion_score(data.queries, own).double().sum(dim=1) > 0
        rows.append(row_of_items(RowId("level_inclusion", at=level), inside))
    uncertainty = data.items.total_var.double()
    falls = (uncertainty[:, :-1] > uncertainty[:, 1:]).all(dim=1)
    rows.append(row_of_items(RowId("uncertainty_falls"), falls))
    generality = -torch.arange(uncertainty.shape[1]).double().expand_as(uncertainty)
    correlation = spearman(uncertainty.flatten(), generality.flatten())
    rows.append(Row(id=RowId("generality_correlation"), value=correlation, num_items=len(uncertainty)))
    for (figure, other, by), value in entailment(data.items, data.ids).items():
        rows.append(Row(id=RowId(f"entailment_{figure}", by=by, other=other), value=value, num_items=len(data.ids)))
    return rows


def _run(
    title: str,
    model: Model,
    options: _Options,
    cache: TaskCache,
    names: list[str],
    embed: Callable[[Gaussian], Hierarchies],
    draw: Callable[[Hierarchies], list[Chart]] = lambda _: [],
) -> SuiteResult:
    """Walk through what `embed` makes of the images of these names, which may repeat."""
    distinct = list(dict.fromkeys(names))

    def prepare(*_: str) -> Prepared:
        data = open_images(options.data, distinct)

        def measure() -> TaskResult:
            found = embed_set(model, data, options.batch_size)
            places = {distinct[int(key)]: row for row, key in enumerate(found.keys)}
            if len(places) < len(distinct):
                raise UserError(options.data, f"cannot read {min(set(distinct) - places.keys())}")
            images = found.gaussian.rows(torch.tensor([places[name] for name in names]))
            made = embed(images)
            return TaskResult(rows=walk_rows(made, options.walk, with_var=model.has_variances), charts=draw(made))

        return data.fingerprint, measure

    return evaluate_sets(title.lower(), model, options, {title: ""}, cache, prepare, NEEDS_VARIANCES)


def _read_table(options: _Options, levels: str, beside: str) -> tuple[list[list[str]], list[str]]:
    tables = sorted(options.data.glob("*.csv"))
    if len(tables) != 1:
        raise UserError("data", "must have one table (.csv)", f"{len(tables)} in {options.data}")
    return read_levels(tables[0], levels, beside)
