"""`prolip export`: write any model in the hub's layout, with a model card, to a folder or to the hub."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from importlib.metadata import version
from pathlib import Path

from prolip.checkpoint import Carried, Checkpoint, read_weights
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.files import atomic_file
from prolip.interop.config import ExportOptions
from prolip.models import ModelConfig
from prolip.models.hub import ModelCard, push_to_hub, save_pretrained
from prolip.models.official_json import from_official_json
from prolip.models.weights import INFERENCE_FILE, build
from prolip.pretrained.carried import (
    carried_by,
    carry,
    image_settings,
    located,
    read_settings,
    write_settings,
)
from prolip.pretrained.sources import load_network, read_beside
from prolip.train.config import from_toml

log = logging.getLogger(__name__)


def run_export(options: ExportOptions) -> list[str]:
    """Write the model, and return the lines to print.

    Raises:
        UserError: neither a folder nor a repository is named, or the source is not a model.
    """
    if options.out is None and options.push is None:
        raise UserError("name a folder to write (--out) or a repository to push to (--push)")
    saved = read_weights(Path(options.source), averaged=options.weights == "average")
    if saved is None:
        model = load_network(options.source)
        tokenizer, keep_ratio = _carried_by_folder(options.source)
        card = ModelCard(start=f"converted from {options.source}")
    else:
        checkpoint, state = saved
        model = build(from_official_json(checkpoint.notes.model_config), state)
        card, keep_ratio = card_of_run(checkpoint), checkpoint.notes.keep_ratio
        tokenizer = carried_by(checkpoint) or from_toml(checkpoint.notes.config).data.tokenizer
    card = dataclasses.replace(
        card,
        name=options.name or card.name,
        data=options.data or card.data,
        licence=options.licence or card.licence,
    )
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(model, options.out or Path(temporary), card=card)
        _write_carried(folder, tokenizer, model.config, keep_ratio)
        if options.out is not None:
            lines.append(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
        if options.push is not None:
            lines.append(f"pushed: {push_to_hub(folder, options.push, private=options.private)}")
    return lines


def card_of_run(checkpoint: Checkpoint) -> ModelCard:
    """Return the model card of a run's checkpoint."""
    config = from_toml(checkpoint.notes.config)
    tokenizer = config.data.tokenizer
    loss, optim = dataclasses.asdict(config.loss), dataclasses.asdict(config.optim)
    run = {
        "batch size": f"{config.batch_size:,}",
        "precision": config.precision,
        "seed": config.seed,
        "masked share of a batch": 0.0 if config.data.masking is None else config.data.masking.masked_fraction,
        "hours": f"{checkpoint.notes.elapsed_s / 3600:.2f}",
        "prolip": version("prolip"),
    }
    return ModelCard(
        name=config.name,
        data=", ".join(f"`{shard}`" for shard in config.data.shards),
        start=config.start_from or "random weights",
        tokenizer="open_clip's CLIP tokenizer" if tokenizer.kind == "clip" else "tokenizer.json in this folder",
        steps=checkpoint.step,
        samples=checkpoint.step * config.batch_size,
        settings={"Run": run, "Loss": loss, "Locked": dataclasses.asdict(config.lock), "Optimiser": optim},
    )


def _write_carried(
    folder: Path, tokenizer: TokenizerConfig | None, model: ModelConfig, keep_ratio: float | None
) -> None:
    """Write all that inference needs besides the model."""
    carried = Carried(images=image_settings(model))
    if tokenizer is not None:
        try:
            carried = carry(tokenizer, model)
        except FileNotFoundError:  # of an older run
            log.warning("the tokenizer %s is missing: the model is exported without one", tokenizer.path)
    for name, content in carried.files.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(content)
    write_settings(folder, carried, keep_ratio)


def _carried_by_folder(source: str) -> tuple[TokenizerConfig | None, float | None]:
    """The tokenizer and the share of kept patches of a model that is not a run, if it names them."""
    file = read_beside(source, INFERENCE_FILE)
    if file is None:
        return None, None
    settings = read_settings(file)
    tokenizer = None if settings.tokenizer is None else located(settings.tokenizer, file.parent)
    return tokenizer, settings.keep_ratio
