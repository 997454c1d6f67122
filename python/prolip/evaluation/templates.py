"""Prompt templates and class names: ImageNet's, which come with open_clip, and those of the emoji captions."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from prolip.errors import UserError

PLAIN_TEMPLATES = ("{}", "a picture of {}", "an emoji of {}")
"""Templates of the emoji captions that take one phrase."""
CHAINED_TEMPLATES = ("{}", "a picture: {}", "{}, emoji")
"""Templates that take a phrase and more general ones: "blowfish, marine animal, animals and nature"."""


def imagenet_classnames() -> list[str]:
    """ImageNet's 1,000 class names as CLIP is evaluated with them, in the order of the labels.

    Raises:
        UserError: open_clip is not installed.
    """
    return list(_open_clip_names()["IMAGENET_CLASSNAMES"])


def imagenet_templates(kind: Literal["all", "simple"] = "all") -> list[str]:
    """CLIP's 80 prompt templates for ImageNet, or CLIP's subset of seven, with `{}` for the class name.

    Raises:
        UserError: open_clip is not installed.
    """
    names = {"all": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}
    return [template("{}") for template in _open_clip_names()[names[kind]]]


def _open_clip_names() -> dict[str, Any]:
    """Return the variables of open_clip's module of names. Only that file is run: importing the package is slow."""
    spec = find_spec("open_clip")
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(folders[0]) / "zero_shot_metadata.py" if folders else None
    if path is None or not path.is_file():
        raise UserError("ImageNet's names and templates come with open_clip: pip install 'prolip[open_clip]'")
    return runpy.run_path(str(path))
