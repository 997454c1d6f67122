"""`prolip report RUN`: one page of a run, with its results, curves and configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prolip.errors import UserError, check
from prolip.report.charts import Line, line_chart
from prolip.report.page import Figure, Section, build_page
from prolip.report.results import result_sections
from prolip.store.atomic_writes import write_atomic
from prolip.store.file_contents import read_text
from prolip.train.best_metric import LOSSES
from prolip.train.logging.log import GROUPS, read_rows

_LEAD = (
    "What the model can do, by every suite whose results lie beside the run, and how it was trained. It maps each "
    "image and each caption to a Gaussian: a position and a width, which says how uncertain it is."
)


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder, one file that loads nothing; returns its path."""
    config, page = folder / "config.toml", folder / "report.html"
    suites = sorted(map(_sections, find_results(folder)), key=lambda some: not any(section.cards for section in some))
    results = [section for sections in suites for section in sections]
    curves = curve_sections(read_rows(folder / "metrics.jsonl"))
    check(results or curves, "run", "no curves in the folder, and no results of it", folder)
    settings = [Section("Configuration", source=read_text(config))] if config.is_file() else []
    sections = [*results, *settings, *curves]  # the loader's curves are the last
    write_atomic(page, build_page(folder.resolve().name, sections, kicker="prolip report", lead=_LEAD))
    return page


def find_results(folder: Path) -> list[Path]:
    """The newest of each suite: below the run's folder, and in `evals` those that name the run."""
    run = folder.resolve()
    beside = [
        path
        for path in Path("evals").glob("*/results.json")
        if any(Path(model).resolve().is_relative_to(run) for model in json.loads(read_text(path)).get("models", {}))
    ]
    paths = sorted([*folder.rglob("results.json"), *beside], key=lambda path: path.stat().st_mtime)
    return list({path.parent.name: path for path in paths}.values())


def _sections(path: Path) -> list[Section]:
    try:
        return result_sections(json.loads(read_text(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(path, "damaged or of another version, run the suite again", f"{error!r}") from error


def curve_sections(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Every metric over the samples seen."""
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if value is not None))
    groups = {
        "Evaluation": [name for name in names if name.startswith("val/")],
        "Loss": [name for name in LOSSES if name in names],
        "Model and optimiser": [name for name in (*GROUPS["model"], *GROUPS["optim"]) if name in names],
        "Speed": [name for name in GROUPS["speed"] if name in names],
        "Loader": [name for name in names if name.startswith(("loader/", "bad/"))],
    }
    return [Section(title, figures=[_curve(rows, name) for name in group]) for title, group in groups.items() if group]


def _curve(rows: Sequence[Mapping[str, Any]], name: str) -> Figure:
    values = [(row["samples"], row[name]) for row in rows if row.get(name) is not None]
    line = Line("", [samples for samples, _ in values], [value for _, value in values])
    chart = line_chart(name, f"{name} by samples seen", [line], x_label="samples seen", marks=len(values) <= 40)
    return Figure(name, chart)
