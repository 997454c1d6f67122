"""What the page is made from: a run's files and the shards' pictures. What is absent is None, and the page says so."""

import base64
import json
import logging
import math
import tarfile
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prolip.demo.suite.results import EmojiResults, Gallery
from prolip.train.logging.runs import read_metrics

ATTRIBUTION_FIELDS = ("part", "credit", "licence", "source", "changes")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything the page shows."""

    run_name: str
    results: EmojiResults
    metrics: list[dict[str, float]]
    """Rows of metrics.jsonl, NaN where a row lacks a value; empty without the file."""
    config_text: str | None
    config: dict[str, Any]
    """config.toml, flattened to dotted keys; empty without the file."""
    attributions: list[dict[str, str]]
    """Whose work the pictures and names are (part, credit, licence, source, changes), from dataset.json."""
    attribution_text: str | None
    """ATTRIBUTION.md, for data that lists none."""
    pictures: Mapping[tuple[str, str], str]
    """(set, key) to a data URI."""


def read_inputs(run_dir: Path, data_dir: Path) -> ReportInputs:
    """The files of a run and the gallery's pictures.

    Raises:
        FileNotFoundError: the run has no eval.json.
        ValueError: eval.json is of another version or damaged.
    """
    path = run_dir / "eval.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: evaluate the run first")
    try:
        results = EmojiResults.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    config_text = _text(run_dir / "config.toml")
    return ReportInputs(
        run_name=run_dir.resolve().name,
        results=results,
        metrics=read_metrics(run_dir / "metrics.jsonl"),
        config_text=config_text,
        config=flatten(tomllib.loads(config_text)) if config_text is not None else {},
        attributions=read_attributions(data_dir / "dataset.json"),
        attribution_text=_text(data_dir / "ATTRIBUTION.md"),
        pictures=read_gallery_pictures(data_dir, results.gallery),
    )


def read_attributions(path: Path) -> list[dict[str, str]]:
    """The entries of dataset.json that name part, credit, licence, source and changes; empty without the file."""
    entries = json.loads(_text(path) or "{}").get("attributions", [])
    return [{name: str(entry.get(name, "")) for name in ATTRIBUTION_FIELDS} for entry in entries]


def column(rows: Sequence[Mapping[str, float]], name: str) -> list[float]:
    """One metric over all rows, NaN where a row lacks it."""
    return [row.get(name, math.nan) for row in rows]


def read_gallery_pictures(data_dir: Path, gallery: Gallery) -> dict[tuple[str, str], str]:
    """Data URIs of the gallery's pictures, from the shards they came from."""
    wanted: dict[str, set[str]] = {}
    for picture in (*gallery.pictures, *gallery.most_certain, *gallery.least_certain):
        wanted.setdefault(picture.set_name, set()).add(picture.key)
    for chain in gallery.chains:
        wanted.setdefault(chain.set_name, set()).add(chain.key)
    return {
        (set_name, key): uri
        for set_name, keys in wanted.items()
        for key, uri in _pictures(data_dir, set_name, keys).items()
    }


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _pictures(data_dir: Path, set_name: str, keys: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for shard in sorted(data_dir.glob(f"{set_name}-*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file = tar.extractfile(member) if extension == "png" and key in keys else None
                if file is not None:
                    found[key] = "data:image/png;base64," + base64.b64encode(file.read()).decode("ascii")
    return found


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
