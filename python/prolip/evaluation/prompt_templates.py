"""Prompt templates and class names of ImageNet, which come with open_clip."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

from prolip.errors import UserError


def imagenet_classnames() -> list[str]:
    """ImageNet's 1,000 class names as CLIP is evaluated with them, in the order of the labels; needs open_clip."""
    return list(_open_clip().IMAGENET_CLASSNAMES)


def imagenet_templates(kind: Literal["all", "simple", "single"] = "all") -> list[str]:
    """CLIP's 80 prompt templates for ImageNet, CLIP's subset of seven, or one, with `{}` for the class name.

    The first two need open_clip.
    """
    if kind == "single":
        return ["A photo of {}"]
    found = _open_clip()
    templates = found.OPENAI_IMAGENET_TEMPLATES if kind == "all" else found.SIMPLE_IMAGENET_TEMPLATES
    return [template("{}") for template in templates]


def _open_clip() -> Any:
    try:
        return import_module("open_clip")
    except ImportError as error:
        raise UserError("templates", "ImageNet's need open_clip; pip install 'prolip[open_clip]'") from error
