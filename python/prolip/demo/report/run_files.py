"""Read what the report shows: a run's files and images from the shards. Missing files are None or empty."""

import base64
import json
import logging
import math
import tarfile
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from prolip.closing import command
from prolip.demo.suite.results import DecidedImage, EmojiResults, Gallery
from prolip.errors import UserError
from prolip.train.flags import flatten
from prolip.train.logging.runs import read_metrics

ATTRIBUTION_FIELDS = ("part", "credit", "licence", "source", "changes")

logger = logging.getLogger(__name__)


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
        UserError: the run has no eval.json, or it is damaged or from another version.
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
    config_text = _text(run_dir / "config.toml")
    return ReportInputs(
        run_name=run_dir.resolve().name,
        results=results,
        metrics=read_metrics(run_dir / "metrics.jsonl"),
        config_text=config_text,
        config=flatten(tomllib.loads(config_text)) if config_text is not None else {},
        attributions=read_attributions(data_dir / "dataset.json"),
        attribution_text=_text(data_dir / "ATTRIBUTION.md"),
        images=read_gallery_images(
            data_dir, results.gallery, results.decisions.examples if results.decisions is not None else []
        ),
    )


def _eval_emoji(run_dir: Path, data_dir: Path) -> str:
    return f"`{command('eval', 'emoji', '--checkpoint', run_dir, '--data', data_dir)}`"


def _missing(run_dir: Path, data_dir: Path) -> str:
    """Why there is no report: the command that is missing, or for a run on other data, what measures that."""
    shards = flatten(tomllib.loads(_text(run_dir / "config.toml") or "")).get("data.shards", [])
    about = _text(data_dir / "dataset.json")
    other_data = about is not None and "designs" not in json.loads(about)
    if not other_data and (not shards or any(PurePath(shard).parent.name == data_dir.name for shard in shards)):
        return f"{run_dir} has no eval.json: {_eval_emoji(run_dir, data_dir)} writes it"
    trained = f", and this run was trained on {shards[0]}" if shards else ""
    measures = command("eval", "zero_shot", "--checkpoint", run_dir, "--data", "FOLDER")
    curves = command("runs", run_dir, "--plot", run_dir / "curves.html")
    return (
        f"{run_dir} has no eval.json: the report is about the emoji of the demo{trained}. `{measures}` measures it on "
        f"class folders of images, `{curves}` draws its curves"
    )


def read_attributions(path: Path) -> list[dict[str, str]]:
    """Read the credits in dataset.json; empty without the file."""
    entries = json.loads(_text(path) or "{}").get("attributions", [])
    return [{name: str(entry.get(name, "")) for name in ATTRIBUTION_FIELDS} for entry in entries]


def column(rows: Sequence[Mapping[str, float]], name: str) -> list[float]:
    """Return one metric over all rows, NaN for rows without it."""
    return [row.get(name, math.nan) for row in rows]


def read_gallery_images(
    data_dir: Path, gallery: Gallery, examples: Sequence[DecidedImage]
) -> dict[tuple[str, str], str]:
    """Read the images of the gallery and of the examples of decisions from the shards, as data URIs."""
    wanted: dict[str, set[str]] = {}
    for image in (*gallery.pictures, *gallery.most_certain, *gallery.least_certain):
        wanted.setdefault(image.set_name, set()).add(image.key)
    for chain in gallery.chains:
        wanted.setdefault(chain.set_name, set()).add(chain.key)
    for example in examples:
        wanted.setdefault(example.set_name, set()).add(example.key)
    return {
        (set_name, key): uri
        for set_name, keys in wanted.items()
        for key, uri in _images(data_dir, set_name, keys).items()
    }


def _images(data_dir: Path, set_name: str, keys: Collection[str]) -> dict[str, str]:
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
