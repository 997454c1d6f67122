"""Read what the report shows: a run's files and images from the shards. Missing files are None or empty."""

import base64
import json
import logging
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from prolip.data import StoreConfig
from prolip.data.samples import read_samples
from prolip.demo.suite.results import ChainExample, DecidedImage, EmojiResults, GalleryImage
from prolip.errors import UserError
from prolip.files import flatten, read_text
from prolip.train.logging.runs import read_metrics

log = logging.getLogger(__name__)

ATTRIBUTION_FIELDS = ("part", "credit", "licence", "source", "changes")


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything that the report shows."""

    run_name: str
    results: EmojiResults
    metrics: list[dict[str, float]]
    """Rows of metrics.jsonl; empty without the file."""
    config_text: str | None
    config: dict[str, Any]
    """config.toml by dotted key; empty without the file."""
    attributions: list[dict[str, str]]
    """Credits from dataset.json: part, credit, licence, source, changes."""
    attribution_text: str | None
    """ATTRIBUTION.md, for data without attributions in dataset.json."""
    images: Mapping[tuple[str, str], str]
    """Data URI by set and key."""


def read_inputs(run_dir: Path, data_dir: Path) -> ReportInputs:
    """Read the files of a run and the gallery's images.

    Raises:
        UserError: the run has no eval.json, it is from another version, or a file is damaged.
    """
    path = run_dir / "eval.json"
    if not path.is_file():
        if not run_dir.is_dir():
            raise UserError(f"{run_dir} is not a folder: name a run's folder")
        raise UserError(_missing(run_dir, data_dir))
    try:
        results = EmojiResults.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        again = _eval_emoji(run_dir, data_dir)
        raise UserError(f"{path} is damaged or of another version: {again} writes it again ({error})") from error
    config_text, config = _config(run_dir)
    return ReportInputs(
        run_name=run_dir.resolve().name,
        results=results,
        metrics=read_metrics(run_dir / "metrics.jsonl"),
        config_text=config_text,
        config=config,
        attributions=read_attributions(data_dir / "dataset.json"),
        attribution_text=_text(data_dir / "ATTRIBUTION.md"),
        images=read_images(data_dir, results),
    )


def _eval_emoji(run_dir: Path, data_dir: Path) -> str:
    return f"`prolip eval emoji --checkpoint {run_dir} --data {data_dir}`"


def _missing(run_dir: Path, data_dir: Path) -> str:
    """Why there is no report: the command that is missing, or for a run on other data, what measures that."""
    shards = _config(run_dir)[1].get("data.shards", [])
    about = _record(data_dir / "dataset.json")
    other_data = about is not None and "designs" not in about
    if not other_data and (not shards or any(PurePath(shard).parent.name == data_dir.name for shard in shards)):
        return f"{run_dir} has no eval.json: {_eval_emoji(run_dir, data_dir)} writes it"
    trained = f", and this run was trained on {shards[0]}" if shards else ""
    measures = f"prolip eval zero_shot --checkpoint {run_dir} --data FOLDER"
    curves = f"prolip runs {run_dir} --plot {run_dir}/curves.html"
    return (
        f"{run_dir} has no eval.json: the report is about the emoji of the demo{trained}. `{measures}` measures it on "
        f"class folders of images, `{curves}` draws its curves"
    )


def read_attributions(path: Path) -> list[dict[str, str]]:
    """Read the credits in dataset.json; empty without the file.

    Raises:
        UserError: it is damaged.
    """
    entries = (_record(path) or {}).get("attributions", [])
    return [{name: str(entry.get(name, "")) for name in ATTRIBUTION_FIELDS} for entry in entries]


def column(rows: Sequence[Mapping[str, float]], name: str) -> list[float]:
    """Return one metric over all rows, NaN for rows without it."""
    return [row.get(name, math.nan) for row in rows]


def read_images(data_dir: Path, results: EmojiResults) -> dict[tuple[str, str], str]:
    """Read the images of the gallery and of the examples of decisions from the shards, as data URIs.

    A warning says how many are not there.
    """
    gallery, decisions = results.gallery, results.decisions
    shown: list[Sequence[GalleryImage | ChainExample | DecidedImage]] = [
        *(gallery.pictures, gallery.most_certain, gallery.least_certain, gallery.chains),
        [] if decisions is None else decisions.examples,
    ]
    wanted = {(one.set_name, one.key) for images in shown for one in images}
    found = {
        (name, sample.key): "data:image/png;base64," + base64.b64encode(sample.image).decode("ascii")
        for name in sorted({name for name, _ in wanted})
        for shard in sorted(data_dir.glob(f"{name}-*.tar"))
        for sample in read_samples(str(shard), (), StoreConfig())
        if (name, sample.key) in wanted
    }
    if len(found) < len(wanted):
        log.warning(
            "data: %s has %d of the page's %d images, and the others are left out: name the shards that were evaluated",
            *(data_dir, len(found), len(wanted)),
        )
    return found


def _config(run_dir: Path) -> tuple[str | None, dict[str, Any]]:
    """Read config.toml: its text, and its values by dotted key; None and empty without the file."""
    path = run_dir / "config.toml"
    text = _text(path)
    try:
        return text, flatten(tomllib.loads(text or ""))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _record(path: Path) -> dict[str, Any] | None:
    """Read a file with a JSON object; None without the file."""
    text = _text(path)
    try:
        found = None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if found is not None and not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it must hold a JSON object")
    return found


def _text(path: Path) -> str | None:
    return read_text(path) if path.is_file() else None
