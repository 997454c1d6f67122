"""The tokenizer that belongs to a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.hub import serving
from tests.support.released_hub import siglips_tokenizer

import prolip
from prolip.data.config import TokenizerConfig
from prolip.errors import UserError
from prolip.models import ARCHITECTURES, ProLIP, TextConfig
from prolip.models.hub import save_pretrained
from prolip.pretrained import DownloadError
from prolip.pretrained.tokenizer_choice import CLIP_TOKENS, choose_tokenizer, find_tokenizer, own_tokenizer


def test_a_run_is_opened_with_its_own_tokenizer(tmp_path: Path) -> None:
    clip = TokenizerConfig(kind="clip")
    assert find_tokenizer(clip, tmp_path) is clip
    own, data = TokenizerConfig(kind="file", path=tmp_path / "own.json"), tmp_path / "data"
    with pytest.raises(ValueError, match=r"own.json is missing, and .*data has no own.json"):
        find_tokenizer(own, data)
    data.mkdir()
    (data / "tokenizer.json").write_text("{}")  # another one
    with pytest.raises(ValueError, match=r"data has no own.json"):
        find_tokenizer(own, data)
    (data / "own.json").write_text("{}")
    assert find_tokenizer(own, data).path == data / "own.json"
    (tmp_path / "own.json").write_text("{}")
    assert find_tokenizer(own, data) is own


def test_a_model_without_a_tokenizer_uses_clips_if_the_vocabulary_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    demo = ARCHITECTURES["demo"]
    for size in (CLIP_TOKENS, CLIP_TOKENS + 1):
        text = replace(demo.text, layers=1, width=32, heads=2, vocab_size=size)
        small = replace(demo, embed_dim=32, vision=replace(demo.vision, layers=1, width=32, head_width=16), text=text)
        save_pretrained(ProLIP(small), tmp_path / str(size))
    tokenizer = prolip.load(tmp_path / str(CLIP_TOKENS)).require_tokenizer()
    assert tokenizer.config.kind == "clip"
    assert "names no tokenizer" in caplog.text
    unknown = prolip.load(tmp_path / str(CLIP_TOKENS + 1))
    assert "only images can be encoded" in caplog.text
    assert unknown.encode_images(torch.zeros(2, 3, 36, 36)).mean.shape == (2, 32), "images need no tokenizer"
    for ask in (unknown.encode_texts, unknown.tokenize, unknown.fingerprint, unknown.require_tokenizer):
        with pytest.raises(ValueError, match="does not say which tokenizer it was trained with"):
            ask(*([] if ask in {unknown.fingerprint, unknown.require_tokenizer} else [["a"]]))


def test_an_open_clip_start_uses_its_own_tokenizer(tmp_path: Path) -> None:
    """As open_clip reads it: CLIP's, or a file of the hub with its cleaning; unknown if the loader has no such."""
    text = ARCHITECTURES["ViT-B-16"].text
    clip = replace(text, vocab_size=CLIP_TOKENS, context_length=77)
    assert own_tokenizer("open_clip:ViT-B-32/openai", clip) == TokenizerConfig(kind="clip", context_length=77)
    assert own_tokenizer("open_clip:ViT-B-32/openai", replace(clip, vocab_size=7)) is None
    config = tmp_path / "open_clip_config.json"
    for settings in ({"tokenizer_kwargs": {"strip_sep_token": True}}, {"tokenizer_mode": "clips"}):
        config.write_text(json.dumps({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "x/y", **settings}}}))
        assert own_tokenizer(f"open_clip:local-dir:{tmp_path}", clip) is None
    config.write_text(json.dumps({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "x/y"}}}))
    local = own_tokenizer(f"open_clip:local-dir:{tmp_path}", clip)
    assert local is not None
    assert (local.path, local.clean) == (tmp_path / "tokenizer.json", "whitespace"), "open_clip's default"
    siglips_tokenizer(tmp_path / "hub" / "models" / "timm" / "ViT-B-16-SigLIP")
    with serving(tmp_path, tmp_path / "cache"):
        found = own_tokenizer("open_clip:ViT-B-16-SigLIP/webli", text)
        assert found is not None
        assert found.path is not None
        assert (found.kind, found.clean, found.path.name) == ("file", "canonicalize", "tokenizer.json")
        assert (found.path.parent / "tokenizer_config.json").is_file()


def test_a_tokenizer_that_cannot_be_downloaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str, *_: object) -> None:
        raise DownloadError(f"{repository} cannot be reached")

    monkeypatch.setattr("prolip.pretrained.tokenizer_choice.hub_file", unreachable)
    with pytest.raises(DownloadError, match="timm/ViT-B-16-SigLIP cannot be reached"):
        own_tokenizer("open_clip:ViT-B-16-SigLIP/webli", ARCHITECTURES["ViT-B-16"].text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clean": "upper", "pad_id": 0}, r"tokenizer_config.json: clean is 'upper': it must be one of lower, "),
        ({"clean": "none", "pad_id": "0"}, r"tokenizer_config.json: pad_id is '0': it must be an integer"),
    ],
)
def test_impossible_settings_of_a_folder_for_transformers_are_named(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=message):
        choose_tokenizer(str(tmp_path), None, TextConfig())
