"""`prolip export`: write any model in the hub's layout, to a folder or to the hub."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from prolip.calibration.config import CALIBRATION_FILE, SEARCH_FILE
from prolip.checkpoint import Checkpoint, Preprocessing
from prolip.data import without_secrets
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError, check
from prolip.images.preprocess import Preprocess
from prolip.inference.load_model import load
from prolip.inference.model import Model
from prolip.inference.tokenizer import check_tokenizer, choose_tokenizer, inference_files, stored_tokenizer
from prolip.interop.config import ExportOptions, OnnxConfig
from prolip.models import ProLIP
from prolip.models.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS, AdaptedNetwork
from prolip.models.hub import (
    CARD_FILE,
    HUB_FILES,
    MERGES_FILES,
    TOKENIZER_FILE,
    ModelCard,
    push_to_hub,
    save_pretrained,
)
from prolip.models.weights import INFERENCE_FILE, MODEL_FILE
from prolip.pretrained.download import HUB_FAILURES, first_line
from prolip.pretrained.sources import InferenceSettings, Source, find_frozen, resolve, write_settings
from prolip.store.atomic_writes import atomic_file, atomic_files, check_own_folder, write_atomic
from prolip.train.config import from_toml

_MARKS = (MODEL_FILE, ADAPTER_FILE, "image.onnx")
"""Files by which an exported model is known, in any format. MODEL_FILE is written first."""
_ADAPTER_CARD = """---
license: {card.licence}
library_name: {card.library}
pipeline_tag: zero-shot-image-classification
tags:
- prolip
- probabilistic-embeddings
- vision-language
---

# {card.name}

Uncertainty for the frozen model `{frozen.source}`: heads that turn its embeddings into Gaussians. The
frozen model itself is not in this folder; it is opened from its own source.

```python
{card.usage}```

- started from: {card.start}
- trained on: {card.data}
- licence: {card.licence}
"""


def run_export(options: ExportOptions) -> list[str]:
    """Write the model; returns the lines to print.

    Raises:
        UserError: neither a folder nor a repository is named, the source is not a model, or does not suit the format;
            or the hub cannot be reached, or refuses the model.
    """
    if options.out is None and options.push is None:
        raise UserError("out", "name a folder to write (--out) or a repository to push to (--push)")
    check(
        options.format == "onnx" or options.onnx == OnnxConfig(),
        "format",
        "must be onnx for the settings of onnx",
        options.format,
    )
    if options.out is not None:
        check_own_folder(options.out, *_MARKS)
    check_tokenizer(options.tokenizer)
    source = resolve(options.checkpoint)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        if source.adapter is not None:
            files = _write_adapted(source, folder, options)
        else:
            files = _write(source, folder, options)
            for name in {ADAPTER_FILE, INFERENCE_FILE} - set(files):
                (folder / name).unlink(missing_ok=True)  # of an earlier export: it would be read for this model
        if options.format != "onnx":
            files = [*files, *_copy_calibrations(source, folder)]
        if options.out is not None:
            lines.append(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
        if options.push is not None:
            try:
                lines.append(f"pushed: {push_to_hub(folder, options.push, files=files, private=options.private)}")
            except HUB_FAILURES as error:
                raise UserError("push", f"the hub refuses the model: {first_line(error)}", options.push) from error
    return lines


def _write(source: Source, folder: Path, options: ExportOptions) -> Sequence[str]:
    checkpoint = source.checkpoint
    if checkpoint is None and source.path is not None and folder.resolve() == source.path.resolve():
        raise UserError("out", "must be another folder than the model itself, whose card would be lost", folder)
    if checkpoint is None and options.weights != "average":
        raise UserError("weights", "only a run has trained weights besides its average", options.weights)
    model = source.network(averaged=options.weights == "average")
    if options.tokenizer is not None:
        tokenizer: TokenizerConfig | None = choose_tokenizer(source, model.config.text, options.tokenizer)
    else:
        tokenizer = stored_tokenizer(source)
        if tokenizer is None and not source.is_released and source.find(TOKENIZER_FILE) is not None:
            tokenizer = choose_tokenizer(source, model.config.text)
    card = ModelCard(start=f"converted from {source.name}") if checkpoint is None else card_of_run(checkpoint)
    card = _with_options(card, options)
    if options.format == "prolip":
        keep_ratio = None if source.settings is None else source.settings.keep_ratio
        _write_prolip(model, tokenizer, keep_ratio, card, folder)
        return HUB_FILES
    tokenizer = tokenizer or choose_tokenizer(source, model.config.text)
    with atomic_files(folder, sum(parameter.nbytes for parameter in model.parameters())) as temporary:
        if options.format == "onnx":
            from prolip.interop.onnx import save_onnx

            save_onnx(model, tokenizer, temporary, card, options.onnx)
        else:
            from prolip.interop.transformers.folder import save_sentence_transformers, save_transformers

            save = save_transformers if options.format == "transformers" else save_sentence_transformers
            save(model, tokenizer, temporary, card)
        return [path.name for path in temporary.iterdir()]


def _write_prolip(
    model: ProLIP, tokenizer: TokenizerConfig | None, keep_ratio: float | None, card: ModelCard, folder: Path
) -> None:
    """In the hub's layout; deletes the tokenizer of an earlier export."""
    stored = Preprocessing(images=Preprocess.of_config(model.config).settings())
    if tokenizer is not None:
        stored = inference_files(tokenizer, model.config)
    save_pretrained(model, folder, card=card)
    for pattern in (TOKENIZER_FILE, MERGES_FILES):
        for file in folder.glob(pattern):
            file.unlink()
    for name, content in stored.files.items():
        write_atomic(folder / name, content)
    known = None if stored.tokenizer is None else TokenizerConfig.from_dict(stored.tokenizer)
    write_settings(folder, InferenceSettings(known, stored.images, keep_ratio))


def _write_adapted(source: Source, folder: Path, options: ExportOptions) -> Sequence[str]:
    """As its adapter, or as both towers in ONNX; returns the names of its files."""
    check(
        options.format in {"prolip", "onnx"},
        "format",
        "an adapted model can be written as prolip or onnx",
        options.format,
    )
    assert source.adapter is not None
    _, frozen, here = source.adapter
    start = f"`{frozen.source}`, frozen, with heads that `prolip adapt` learned"
    card = _with_options(ModelCard(start=start), options)
    if options.format == "onnx":
        from prolip.interop.onnx import save_onnx

        opened = load(source.name, tokenizer=options.tokenizer, device="cpu")
        assert isinstance(opened.network, AdaptedNetwork)
        network, card = opened.network.as_prolip(), dataclasses.replace(card, settings={"Use": _use(opened)})
        if isinstance(opened.encoder.tokenizer, Tokenizer):
            tokenizer = opened.encoder.tokenizer.config
        else:
            tokenizer = choose_tokenizer(resolve(find_frozen(frozen, here)), network.config.text, options.tokenizer)
        with atomic_files(folder, sum(parameter.nbytes for parameter in network.parameters())) as temporary:
            save_onnx(network, tokenizer, temporary, card, options.onnx)
            return [path.name for path in temporary.iterdir()]
    for name in (ADAPTER_WEIGHTS, ADAPTER_FILE):
        if folder.absolute() != here.absolute():
            with atomic_file(folder / name) as temporary:
                shutil.copyfile(here / name, temporary)
    write_atomic(folder / CARD_FILE, _ADAPTER_CARD.format(card=card, frozen=frozen))
    return (ADAPTER_FILE, ADAPTER_WEIGHTS, CARD_FILE)


def _use(model: Model) -> dict[str, str]:
    images = model.preprocess
    rows = {"images": f"resized as `{images.resize}` ({images.filter}) before the tower"}
    return rows


def _copy_calibrations(source: Source, folder: Path) -> list[str]:
    """Copy those that hold for the exported model; returns their names."""
    targets = [folder / CALIBRATION_FILE, folder / SEARCH_FILE]
    for target in targets:
        found = source.find(target.name)
        if found is None:
            target.unlink(missing_ok=True)  # of an earlier export
        elif found.resolve() != target.resolve():
            with atomic_file(target) as temporary:
                shutil.copyfile(found, temporary)
    if any(target.exists() for target in targets):
        model = load(folder, device="cpu")  # says why; other weights or another tokenizer were chosen
        for target, kept in zip(targets, (model.calibration, model.search_calibration), strict=True):
            if kept is None:
                target.unlink(missing_ok=True)
    return [target.name for target in targets if target.exists()]


def _with_options(card: ModelCard, options: ExportOptions) -> ModelCard:
    return dataclasses.replace(
        card,
        name=options.name or card.name,
        data=options.trained_on or card.data,
        licence=options.licence or card.licence,
    )


def card_of_run(checkpoint: Checkpoint) -> ModelCard:
    """Of a run's checkpoint."""
    config = from_toml(checkpoint.notes.config)
    tokenizer, selection = config.data.tokenizer, config.data.selection
    chosen = () if selection is None else (selection,)
    loss, optim = dataclasses.asdict(config.loss), dataclasses.asdict(config.optim)
    run = {
        "batch size": f"{config.samples_per_step:,.0f}",
        "precision": config.precision,
        "seed": config.seed,
        "masked share of a batch": 0.0 if config.data.masking is None else config.data.masking.masked_fraction,
        "hours": f"{checkpoint.notes.elapsed_s / 3600:.2f}",
        "prolip": version("prolip"),
    }
    return ModelCard(
        name=config.name,
        data=", ".join(f"`{without_secrets(shard)}`" for shard in (*config.data.shards, *chosen)),
        start=config.start_from or "random weights",
        tokenizer="open_clip's CLIP tokenizer" if tokenizer.kind == "clip" else "tokenizer.json in this folder",
        steps=checkpoint.step,
        samples=checkpoint.notes.samples,
        settings={"Run": run, "Loss": loss, "Locked": dataclasses.asdict(config.lock), "Optimiser": optim},
    )
