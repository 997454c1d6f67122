"""Results of a synthetic suite for synthetic models."""

from dataclasses import replace

import torch

from prolip.evaluation.results import RowId, SuiteResult, row_of_items

COUNT = 400


def hits(share, seed=0):
    """Answers of which a share is right."""
    return (torch.rand(COUNT, generator=torch.Generator().manual_seed(seed)) < share).double()


def result(model, *rows, notes=(), charts=()):
    return SuiteResult(
        suite="toy", model=model, fingerprint=f"f-{model}", rows=list(rows), notes=list(notes), charts=list(charts)
    )


def values(found, model=0, data=None):
    """A model's figures in results.json by id, without the data set: of `data`, or of all."""
    name = [*found["models"]][model]
    rows = [row for row in found["figures"] if data in {None, row["id"]["data"]} and row["value"][name] is not None]
    return {replace(RowId(**row["id"]), data=""): row["value"][name] for row in rows}


def row(measure, data, items, labels=None, statistic="mean", main=False):
    """A row whose id has a data set."""
    return row_of_items(RowId(measure, data=data), items, labels, statistic=statistic, main=main)
