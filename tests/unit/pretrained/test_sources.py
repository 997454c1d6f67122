"""Paths in model sources become absolute."""

import pytest

from prolip.errors import UserError
from prolip.pretrained.sources import absolute_source


def test_path_sources_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "mine.pt").touch()
    for source, expected in (
        ("run", f"{tmp_path}/run"),
        ("open_clip:local-dir:run", f"open_clip:local-dir:{tmp_path}/run"),
        ("open_clip:ViT-B-32/mine.pt", f"open_clip:ViT-B-32/{tmp_path}/mine.pt"),
    ):
        assert absolute_source(source) == expected
        assert absolute_source(expected) == expected
    for name in ("open_clip:ViT-B-32/openai", "open_clip:hf-hub:a/b", "hf-hub:a/b", "ProLIP-ViT-B-16-DC-1B-12_8B"):
        assert absolute_source(name) == name
    with pytest.raises(UserError, match=r"^checkpoint: "):
        absolute_source("absent")
