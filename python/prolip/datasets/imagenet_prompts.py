"""ImageNet's class names and prompt templates, as CLIP is evaluated with them, from open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from prolip.errors import UserError

IMAGENET, SIMPLE = "imagenet", "imagenet_simple"
"""In place of a list."""


def named_templates(templates: Sequence[str]) -> list[str]:
    """As given, or those of the set that they name."""
    named = list(templates)
    return imagenet_templates(simple=named == [SIMPLE]) if named in ([IMAGENET], [SIMPLE]) else named


def imagenet_classnames() -> list[str]:
    """1,000, in the order of the labels."""
    return list(_open_clip().IMAGENET_CLASSNAMES)


def imagenet_templates(*, simple: bool = False) -> list[str]:
    """CLIP's 80, or its subset of seven, with `{}` for the class name."""
    found = _open_clip()
    templates = found.SIMPLE_IMAGENET_TEMPLATES if simple else found.OPENAI_IMAGENET_TEMPLATES
    return [template("{}") for template in templates]


def _open_clip() -> Any:
    try:
        return import_module("open_clip")
    except ImportError as error:
        raise UserError("templates", "ImageNet's need open_clip; pip install 'prolip[open_clip]'") from error
