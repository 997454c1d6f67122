"""The short help of `prolip train`: the settings that most runs set, by topic."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from prolip.train import flags
from prolip.train.config.recipes import recipe_values
from prolip.train.config.run import DERIVED_KEYS, TrainConfig

GROUPS: dict[str, tuple[str, ...]] = {
    "the run": ("out", "resume", "seed"),
    "its length": ("samples_seen", "batch_size"),
    "data": (
        "data.shards",
        "data.num_samples",
        "data.captions.0.sources.0.key",
        "data.tokenizer.path",
        "data.num_threads",
        "validation.jobs.0.shards",
    ),
    "model": ("architecture", "start_from", "lock.image", "lock.text"),
    "optimiser": ("optim.lr", "optim.warmup_steps"),
    "device": ("device", "precision", "accumulate"),
    "while it runs": ("log_every", "checkpoint_every"),
}
"""The keys that `prolip train --help` shows; `--help-all` shows all."""
_SHORT = {"data.shards": "--shards, --data.shards", "data.num_threads": "--threads, --data.num_threads"}
_PLACES = re.compile(r"\.\d+(?=\.)")


def short_help(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the help, with the values that the recipes set.

    Raises:
        UserError: a recipe cannot be read.
    """
    width = min(shutil.get_terminal_size().columns, 110)
    values = flags.flatten(flags.to_table(TrainConfig(), DERIVED_KEYS)) | recipe_values(arguments)
    yield "usage: prolip train [RECIPE ...] [--KEY VALUE ...]"
    yield ""
    yield from textwrap.wrap(
        "Train from recipes and flags. A recipe is a TOML file or a name of `prolip recipes`, such as demo, "
        "finetune-clip-vit-b16, vit-b16-datacomp-1b-1.28b. Every key of a recipe is a flag; later recipes win, and "
        "flags win over recipes. On several GPUs: torchrun --nproc-per-node N -m prolip.train with the same words.",
        width,
    )
    for title, keys in GROUPS.items():
        yield f"\n{title}:"
        for key in keys:
            yield f"  {_SHORT.get(key, f'--{key}')}{_shown(values.get(key))}"
            yield from textwrap.wrap(
                _document(TrainConfig, key), width, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    rest = len(values) - sum(map(len, GROUPS.values()))
    yield "\nmore:"
    yield "  --dry-run\n      Open everything, compute parameters, memory and hours, and start nothing."
    yield f"  --help-all\n      All keys, these and {rest} more."


def _shown(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "" if value is None or text in {"", "None"} else f"  [{text}]"


def _document(kind: Any, key: str) -> str:
    """Return the docstring of the field at a dotted key, in one line."""
    *path, name = _PLACES.sub("", key).split(".")
    for part in path:
        hint = typing.get_type_hints(kind)[part]
        kind = next((inner for inner in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(inner)), hint)
    return next(" ".join(documents[name].split()) for documents in map(_documents, kind.__mro__) if name in documents)


@cache
def _documents(kind: type) -> dict[str, str]:
    """Return the docstrings under the fields of a class, by field."""
    if not dataclasses.is_dataclass(kind):
        return {}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = ast.literal_eval(below.value)
    return found
