"""`prolip report RUN`: one page of a run, with its results, curves and configuration."""

from __future__ import annotations

import json
from pathlib import Path

from prolip.errors import UserError, check
from prolip.report.page import Section, build_page
from prolip.report.results import result_sections
from prolip.store.atomic_writes import write_atomic
from prolip.store.file_contents import read_text
from prolip.train.logging.runs import curve_sections, find_runs


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder, one file that loads nothing from elsewhere, and return its path."""
    config, page = folder / "config.toml", folder / "report.html"
    found = sorted(map(_sections, find_results(folder)), key=lambda some: not any(section.cards for section in some))
    results, curves = [section for some in found for section in some], []
    if (folder / "metrics.jsonl").is_file():
        runs = find_runs([folder])
        curves = curve_sections(runs, list(dict.fromkeys(name for run in runs for row in run.rows for name in row)))
    check(results or curves, "run", "no curves in the folder, and no results of it", folder)
    settings = [Section("Configuration", source=read_text(config))] if config.is_file() else []
    sections = [*results, *settings, *curves]  # the loader's curves are the last
    write_atomic(page, build_page(folder.resolve().name, sections, kicker="prolip report", lead=_LEAD))
    return page


def find_results(folder: Path) -> list[Path]:
    """Find the newest results of each suite: below the run's folder, and in `evals` those that name the run."""
    run = folder.resolve()
    beside = [
        path
        for path in Path("evals").glob("*/results.json")
        if any(Path(model).resolve().is_relative_to(run) for model in json.loads(read_text(path)).get("models", {}))
    ]
    found = sorted([*folder.rglob("results.json"), *beside], key=lambda path: path.stat().st_mtime)
    return list({path.parent.name: path for path in found}.values())


def _sections(path: Path) -> list[Section]:
    try:
        return result_sections(json.loads(read_text(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(path, "damaged or of another version, run the suite again", f"{error!r}") from error


_LEAD = (
    "What the model can do, by every suite whose results lie beside the run, and how it was trained. It maps each "
    "image and each caption to a Gaussian: a position and a width, which says how uncertain it is."
)
