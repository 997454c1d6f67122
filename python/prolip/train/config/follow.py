"""Settings that follow from others unless they are set: from the start, from the model, from the tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.models.architectures import ARCHITECTURES
from prolip.train import flags
from prolip.train.config.run import TrainConfig

OF_START = "start_from"
"""The architecture of the model that a run starts from."""
_CHOICES = ("architecture", "start_from", "start_resize")
_TOKENIZER = "data.tokenizer."


class Origin(NamedTuple):
    """Where the model of a run comes from."""

    architecture: str
    """A name of `ARCHITECTURES`, or `OF_START`."""
    start: str | None
    """The model to start from; None for random weights."""
    described: int
    """Number of leading tables that describe another model than the start; their model settings are ignored."""


def find_origin(tables: Sequence[flags.NamedTable], words: Sequence[str]) -> Origin:
    """Return the start and the architecture that recipes and flags choose; later choices win.

    A start brings its architecture unless one is named with it or later, or its tables are resized.

    Raises:
        UserError: there is no such architecture, or no start whose architecture is wanted.
    """
    by_flag = {key: value for key in _CHOICES if (value := flags.last_value(words, key)) is not None}
    layers: list[Mapping[str, Any]] = [*(table for _, table in tables), by_flag]
    latest = {key: place for key in _CHOICES for place, layer in enumerate(layers) if key in layer}
    chosen = {key: str(layers[place][key]) for key, place in latest.items()}
    start = None if chosen.get("start_from", "None") == "None" else chosen["start_from"]
    architecture = chosen.get("architecture", TrainConfig.architecture if start is None else OF_START)
    first = latest.get("architecture", 0)
    # A start that is resized, such as LongProLIP's, takes the architecture of the recipe.
    resized = chosen.get("start_resize", "off") != "off"
    if start is not None and architecture != OF_START and latest["start_from"] > first and not resized:
        architecture, first = OF_START, latest["start_from"]
    if architecture == OF_START and start is None:
        raise UserError(f"architecture is {OF_START!r}, and start_from names no checkpoint")
    if architecture not in {*ARCHITECTURES, OF_START}:
        raise UserError(f"architecture is {architecture!r}: it must be one of {', '.join(ARCHITECTURES)}")
    describing = [place for place, layer in enumerate(layers[:first]) if {"model", "architecture"} & layer.keys()]
    return Origin(architecture, start, max(describing, default=-1) + 1 if architecture == OF_START else 0)


def of_the_start(
    base: TrainConfig,
    tables: Sequence[flags.NamedTable],
    words: Sequence[str],
    origin: Origin,
    saved: TrainConfig | None,
) -> tuple[TrainConfig, list[flags.NamedTable]]:
    """Return the defaults and the tables with the architecture and the tokenizer of the start, where it has them.

    If the run has begun earlier, both come from its saved settings, and the start is not opened: it may be gone by now.
    """
    from prolip.pretrained import own_tokenizer, read_config  # import torch, which --help must not wait for

    assert origin.start is not None
    begun = saved is not None and saved.start_from == origin.start
    base = dataclasses.replace(base, model=saved.model if saved and begun else read_config(origin.start))
    asked = given(tables[origin.described :], words)
    another = any(key.startswith(_TOKENIZER) and key != f"{_TOKENIZER}context_length" for key in asked)
    known = None
    if not another and saved and begun:
        path = saved.data.tokenizer.path
        gone = path is not None and not path.is_file()  # then the copy in the run's checkpoints serves
        known = own_tokenizer(str(saved.out), base.model.text) if gone else saved.data.tokenizer
    elif not another:
        known = own_tokenizer(origin.start, base.model.text)
    if known is not None:
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, tokenizer=known))
    drops = another or known is not None
    described = [(name, _without(table, tokenizer=drops)) for name, table in tables[: origin.described]]
    return base, [*described, *tables[origin.described :]]


def _without(table: Mapping[str, Any], *, tokenizer: bool) -> dict[str, Any]:
    """Return a table without its model and, with `tokenizer`, without its tokenizer."""
    kept = {key: value for key, value in table.items() if key != "model"}
    if tokenizer and "data" in kept:
        kept["data"] = {key: value for key, value in kept["data"].items() if key != "tokenizer"}
    return kept


def fill_in(
    config: TrainConfig, tables: Sequence[flags.NamedTable], words: Sequence[str], origin: Origin
) -> TrainConfig:
    """Return the settings, with those that follow from others filled in unless they were set.

    - `model.text.vocab_size` of a named architecture grows to what the tokenizer needs.
    - `data.tokenizer.kind` is "file" for a tokenizer.json, and `data.tokenizer.context_length` is that of the model.
    - `data.mask.text_mode` is "remove" if `mask_id` is not a free row of the token table.
    """
    asked = given(tables[origin.described :], words)
    text, tokenizer, mask = config.model.text, config.data.tokenizer, config.data.mask
    if tokenizer.path is not None and tokenizer.path.suffix == ".json" and "data.tokenizer.kind" not in asked:
        tokenizer = dataclasses.replace(tokenizer, kind="file")
    if "data.tokenizer.context_length" not in asked:
        tokenizer = dataclasses.replace(tokenizer, context_length=text.context_length)
    grows = "model.text.vocab_size" not in asked and origin.architecture != OF_START
    masks = mask is not None and not {"data.mask.text_mode", "data.mask.mask_id"} & asked
    needed = _needed_rows(tokenizer) if grows or masks else None
    if needed is not None and grows:
        text = dataclasses.replace(text, vocab_size=max(text.vocab_size, needed))
    if needed is not None and mask is not None and masks and not needed <= mask.mask_id < text.vocab_size:
        mask = dataclasses.replace(mask, text_mode="remove")
    return dataclasses.replace(
        config,
        architecture=origin.architecture,
        model=dataclasses.replace(config.model, text=text),
        data=dataclasses.replace(config.data, tokenizer=tokenizer, mask=mask),
    )


def given(tables: Sequence[flags.NamedTable], words: Sequence[str]) -> set[str]:
    """Return the dotted keys that tables and flags set."""
    return {key for _, table in tables for key in flags.flatten(table)} | set(flags.named(words))


@cache
def _needed_rows(config: TokenizerConfig) -> int | None:
    """Return the rows that a tokenizer needs in a token table; None if it cannot be opened, which is reported later."""
    from prolip.data.tokenizer import Tokenizer  # not needed to print the help

    try:
        return Tokenizer(config).vocab_size
    except (UserError, OSError):
        return None
