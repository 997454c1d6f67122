"""`prolip export`: write any model, with a model card, to a folder or to the hub."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from prolip.checkpoint import Checkpoint
from prolip.errors import UserError
from prolip.interop.config import ExportOptions, OnnxConfig
from prolip.models import ProLIP
from prolip.models.hub import HUB_FILES, ModelCard, push_to_hub, save_pretrained
from prolip.models.official_json import from_official_json
from prolip.pretrained.open import choose_tokenizer, open_run
from prolip.pretrained.sources import load_network
from prolip.train.config import from_toml


def run_export(options: ExportOptions) -> list[str]:
    """Write the model, and return the lines to print.

    Raises:
        UserError: neither a folder nor a repository is named, the source is not a model, or the format cannot hold it.
    """
    if options.out is None and options.push is None:
        raise UserError("name a folder to write (--out) or a repository to push to (--push)")
    if options.format != "onnx" and options.onnx != OnnxConfig():
        raise UserError(f"format is {options.format}: the settings of onnx need --format onnx")
    model, card = _read(options)
    card = dataclasses.replace(
        card,
        name=options.name or card.name,
        data=options.data or card.data,
        licence=options.licence or card.licence,
    )
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        files = _write(model, folder, card, options)
        if options.out is not None:
            lines.append(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
        if options.push is not None:
            lines.append(f"pushed: {push_to_hub(folder, options.push, files=files, private=options.private)}")
    return lines


def _read(options: ExportOptions) -> tuple[ProLIP, ModelCard]:
    """The model to write, and what is known about it."""
    checkpoint = open_run(options.source)
    if checkpoint is None:
        return load_network(options.source), ModelCard(start=f"converted from {options.source}")
    model = ProLIP(from_official_json(checkpoint.notes.model_config))
    model.load_state_dict(checkpoint.weights() if options.weights == "average" else checkpoint.model())
    return model, card_of_run(checkpoint)


def _write(model: ProLIP, folder: Path, card: ModelCard, options: ExportOptions) -> Sequence[str]:
    """Write the folder, and return the names of its files."""
    if options.format == "prolip":
        found = _tokenizer_file(options)
        save_pretrained(model, folder, card=card, tokenizer=found)
        return HUB_FILES
    tokenizer = choose_tokenizer(options.source, options.tokenizer, model.config.text, open_run(options.source))
    if options.format == "onnx":
        from prolip.interop.onnx import save_onnx

        return save_onnx(model, tokenizer, folder, card, options.onnx)
    if options.format == "transformers":
        from prolip.interop.transformers.folder import TRANSFORMERS_FILES, save_transformers

        save_transformers(model, tokenizer, folder, card)
        return TRANSFORMERS_FILES
    from prolip.interop.transformers.folder import SENTENCE_FILES, save_sentence_transformers

    save_sentence_transformers(model, tokenizer, folder, card)
    return SENTENCE_FILES


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


def _tokenizer_file(options: ExportOptions) -> Path | None:
    """Return the tokenizer's file; None if it is missing or comes with open_clip."""
    if options.tokenizer is not None:
        return None if options.tokenizer == "clip" else Path(options.tokenizer)
    checkpoint = open_run(options.source)
    if checkpoint is None:
        return None
    tokenizer = from_toml(checkpoint.notes.config).data.tokenizer
    return tokenizer.path if tokenizer.kind == "file" and tokenizer.path and tokenizer.path.is_file() else None
