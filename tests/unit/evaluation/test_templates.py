"""ImageNet's names and templates come with open_clip."""

from __future__ import annotations

import pytest

from prolip.errors import UserError
from prolip.evaluation import imagenet_classnames, imagenet_templates


def test_class_names_and_templates_have_open_clips_counts() -> None:
    assert len(imagenet_classnames()) == 1000
    assert (len(imagenet_templates()), len(imagenet_templates("simple"))) == (80, 7)


def test_without_open_clip_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prolip.evaluation.templates.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"come with open_clip: pip install 'prolip\[open_clip\]'"):
        imagenet_classnames()
