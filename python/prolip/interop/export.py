"""`prolip export`: write any model in the hub's layout, with a model card, to a folder or to the hub."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from prolip.checkpoint import Checkpoint, Preprocessing, read_weights
from prolip.data.config import TokenizerConfig
from prolip.decisions.config import CALIBRATION_FILE
from prolip.errors import UserError
from prolip.files import atomic_file, atomic_files, check_own_folder
from prolip.interop.config import ExportOptions, OnnxConfig
from prolip.interop.export_adapted import export_adapted, with_options
from prolip.models import ModelConfig, ProLIP
from prolip.models.adapter import ADAPTER_FILE
from prolip.models.hub import HUB_FILES, MERGES_FILES, TOKENIZER_FILE, ModelCard, push_to_hub, save_pretrained
from prolip.models.weights import INFERENCE_FILE, MODEL_FILE
from prolip.pretrained.adapted import find_adapter
from prolip.pretrained.carried import carried_by, carry, image_settings, write_settings
from prolip.pretrained.download import HUB_FAILURES, first_line
from prolip.pretrained.open import load
from prolip.pretrained.sources import build_saved, load_network, read_beside
from prolip.pretrained.tokenizer_choice import (
    carried_tokenizer,
    check_tokenizer,
    choose_tokenizer,
    exported_settings,
)
from prolip.train.config import from_toml

log = logging.getLogger(__name__)

_MARKS = (MODEL_FILE, ADAPTER_FILE, "image.onnx")
"""Files by which an exported model is known, in any format. MODEL_FILE is written first."""
_TOKENIZERS = (TOKENIZER_FILE, MERGES_FILES)
"""Patterns of a tokenizer's file. Beside the weights of a model without a tokenizer, it would be taken for theirs."""


class _Source(NamedTuple):
    """The model to write, and what belongs to it."""

    model: ProLIP
    card: ModelCard
    tokenizer: TokenizerConfig | None
    """The requested tokenizer, or the one that the source carries."""
    keep_ratio: float | None
    """Share of patches that training kept of masked images; None if unknown."""


def run_export(options: ExportOptions) -> list[str]:
    """Write the model, and return the lines to print.

    Raises:
        UserError: neither a folder nor a repository is named, the source is not a model, or does not suit the format;
            or the hub cannot be reached, or refuses the model.
    """
    if options.out is None and options.push is None:
        raise UserError("name a folder to write (--out) or a repository to push to (--push)")
    if options.format != "onnx" and options.onnx != OnnxConfig():
        raise UserError(f"format is {options.format}: the settings of onnx need --format onnx")
    if options.out is not None:
        check_own_folder(options.out, *_MARKS)
    check_tokenizer(options.tokenizer)
    source = find_adapter(options.checkpoint) or _read(options)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        if isinstance(source, _Source):
            files = _write(source, folder, options)
            for name in {ADAPTER_FILE, INFERENCE_FILE} - set(files):
                (folder / name).unlink(missing_ok=True)  # of an earlier export: it would be read for this model
        else:
            files = export_adapted(options, *source, folder)
        if options.format != "onnx":
            files = [*files, *_copy_calibration(options.checkpoint, folder)]
        if options.out is not None:
            lines.append(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
        if options.push is not None:
            lines.append(f"pushed: {_push(folder, options.push, files, options.private)}")
    return lines


def _copy_calibration(source: str, folder: Path) -> list[str]:
    """Copy the calibration of a source beside the exported model, if it is for that; return the names of its files."""
    found, target = read_beside(source, CALIBRATION_FILE), folder / CALIBRATION_FILE
    if found is None:
        target.unlink(missing_ok=True)  # of an earlier export
        return []
    if found.resolve() != target.resolve():
        with atomic_file(target) as temporary:
            shutil.copyfile(found, temporary)
    if load(folder, device="cpu").calibration is None:  # which says why; other weights or another tokenizer were chosen
        target.unlink()
        return []
    return [CALIBRATION_FILE]


def _push(folder: Path, repository: str, files: Sequence[str], private: bool) -> str:
    try:
        return push_to_hub(folder, repository, files=files, private=private)
    except HUB_FAILURES as error:
        raise UserError(f"push is {repository}: the hub does not take the model: {first_line(error)}") from error


def _read(options: ExportOptions) -> _Source:
    """Read the model, and what is known about it."""
    saved = read_weights(Path(options.checkpoint), averaged=options.weights == "average")
    if saved is None:
        if options.out is not None and options.out.resolve() == Path(options.checkpoint).resolve():
            raise UserError(f"out: {options.out} is the model itself, whose card would be lost: name another folder")
        if options.weights != "average":
            raise UserError(f"weights is {options.weights}: {options.checkpoint} is no run, and has no other weights")
        model = load_network(options.checkpoint)
        settings = exported_settings(options.checkpoint, None)
        tokenizer = carried_tokenizer(options.checkpoint, None, settings, None) if options.tokenizer is None else None
        keep_ratio = None if settings is None else settings.keep_ratio
        card = ModelCard(start=f"converted from {options.checkpoint}")
    else:
        checkpoint, state = saved
        model = build_saved(checkpoint, state)
        card, keep_ratio = card_of_run(checkpoint), checkpoint.notes.keep_ratio
        tokenizer = carried_by(checkpoint) or from_toml(checkpoint.notes.config).data.tokenizer
    if options.tokenizer is not None:
        tokenizer = choose_tokenizer(options.checkpoint, options.tokenizer, model.config.text)
    return _Source(model, with_options(card, options), tokenizer, keep_ratio)


def _write(source: _Source, folder: Path, options: ExportOptions) -> Sequence[str]:
    """Write the folder, and return the names of its files."""
    model, card, tokenizer, keep_ratio = source
    if options.format == "prolip":
        carried = _carried(tokenizer, model.config)  # first, since it may fail
        save_pretrained(model, folder, card=card)
        _write_carried(folder, carried, keep_ratio)
        return HUB_FILES
    tokenizer = tokenizer or choose_tokenizer(options.checkpoint, None, model.config.text)
    with atomic_files(folder, sum(parameter.nbytes for parameter in model.parameters())) as temporary:
        if options.format == "onnx":
            from prolip.interop.onnx import save_onnx

            return save_onnx(model, tokenizer, temporary, card, options.onnx)
        from prolip.interop.transformers.folder import save_sentence_transformers, save_transformers

        save = save_transformers if options.format == "transformers" else save_sentence_transformers
        return save(model, tokenizer, temporary, card)


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


def _carried(tokenizer: TokenizerConfig | None, model: ModelConfig) -> Preprocessing:
    """Return what inference needs besides the model."""
    if tokenizer is not None:
        try:
            return carry(tokenizer, model)
        except FileNotFoundError:  # of an older run
            log.warning("the tokenizer %s is missing: the model is exported without one", tokenizer.path)
    return Preprocessing(images=image_settings(model))


def _write_carried(folder: Path, carried: Preprocessing, keep_ratio: float | None) -> None:
    """Write the files that inference needs besides the model, and delete the tokenizer of an earlier export."""
    for pattern in _TOKENIZERS:
        for file in folder.glob(pattern):
            if file.name not in carried.files:
                file.unlink()
    for name, content in carried.files.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(content)
    write_settings(folder, carried, keep_ratio)
