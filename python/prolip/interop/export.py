"""`prolip export`: write any model in the hub's layout, with a model card, to a folder or to the hub."""

from __future__ import annotations

import dataclasses
import tempfile
from importlib.metadata import version
from pathlib import Path

from prolip.checkpoint import Checkpoint
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.interop.config import ExportOptions
from prolip.models import ProLIP
from prolip.models.hub import ModelCard, push_to_hub, save_pretrained
from prolip.models.official_json import from_official_json
from prolip.pretrained.open import open_run
from prolip.pretrained.sources import load_network
from prolip.train.config import from_toml


def run_export(options: ExportOptions) -> list[str]:
    """Write the model, and return the lines to print.

    Raises:
        UserError: neither a folder nor a repository is named, or the source is not a model.
    """
    if options.out is None and options.push is None:
        raise UserError("name a folder to write (--out) or a repository to push to (--push)")
    checkpoint = open_run(options.source)
    if checkpoint is None:
        model, tokenizer = load_network(options.source), None
        card = ModelCard(start=f"converted from {options.source}")
    else:
        model = ProLIP(from_official_json(checkpoint.notes.model_config))
        model.load_state_dict(checkpoint.weights() if options.weights == "average" else checkpoint.model())
        card = card_of_run(checkpoint)
        tokenizer = _tokenizer_file(from_toml(checkpoint.notes.config).data.tokenizer)
    card = dataclasses.replace(
        card,
        name=options.name or card.name,
        data=options.data or card.data,
        licence=options.licence or card.licence,
    )
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(model, options.out or Path(temporary), card=card, tokenizer=tokenizer)
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


def _tokenizer_file(tokenizer: TokenizerConfig) -> Path | None:
    """Return the tokenizer's file; None if it is missing or comes with open_clip."""
    return tokenizer.path if tokenizer.kind == "file" and tokenizer.path and tokenizer.path.is_file() else None
