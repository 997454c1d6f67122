"""Every model source that a user may name, and the tokenizer that belongs to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.data.config import TokenizerConfig
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.hub import save_pretrained
from prolip.pretrained import open as opening
from prolip.pretrained.model import Preprocess

CPU = torch.device("cpu")


def test_a_folder_without_a_usable_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        opening.load(tmp_path)
    with pytest.raises(ValueError, match=r"absent.pt is neither a file nor a folder"):
        opening.load(tmp_path / "absent.pt")


def test_a_run_is_opened_with_its_own_tokenizer(tmp_path: Path) -> None:
    clip = TokenizerConfig(kind="clip")
    assert opening.find_tokenizer(clip, tmp_path) is clip
    own, data = TokenizerConfig(kind="file", path=tmp_path / "own.json"), tmp_path / "data"
    with pytest.raises(ValueError, match=r"own.json is missing, and .*data has no own.json"):
        opening.find_tokenizer(own, data)
    data.mkdir()
    (data / "tokenizer.json").write_text("{}")  # another one
    with pytest.raises(ValueError, match=r"data has no own.json"):
        opening.find_tokenizer(own, data)
    (data / "own.json").write_text("{}")
    assert opening.find_tokenizer(own, data).path == data / "own.json"
    (tmp_path / "own.json").write_text("{}")
    assert opening.find_tokenizer(own, data) is own


def test_an_exported_model_brings_its_tokenizer(tmp_path: Path) -> None:
    write_run(tmp_path / "run", tmp_path / "own.json", context_length=7)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    ours, theirs = (opening.load(tmp_path / name, device="cpu") for name in ("run", "out"))
    assert ours.tokenize(["a picture of food"]).tolist() == theirs.tokenize(["a picture of food"]).tolist()
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.keep_ratio == theirs.keep_ratio is not None


def test_the_fingerprint_is_the_models(tmp_path: Path) -> None:
    write_run(tmp_path / "run", tmp_path / "own.json", context_length=7)
    model = opening.load(tmp_path / "run", device="cpu")
    before = model.fingerprint()
    others = [
        replace(model, preprocess=Preprocess(size=model.preprocess.size, mean=(0.5, 0.5, 0.5))),
        replace(model, preprocess=replace(model.preprocess, std=(0.5, 0.5, 0.5))),
        replace(model, preprocess=replace(model.preprocess, interpolation="bilinear")),
        replace(model, preprocess=replace(model.preprocess, resize_mode="squash")),
        replace(model, has_variances=False),
        replace(model, tokenize=lambda captions: model.tokenize([text[:2] for text in captions])),
    ]
    found = [other.fingerprint() for other in others]
    assert replace(model, name="elsewhere").fingerprint() == before
    next(model.network.parameters()).data[...] += 1e-3
    found.append(model.fingerprint())
    assert len({before, *found}) == 1 + len(others) + 1


def test_without_a_tokenizer_a_model_with_as_many_tokens_takes_clips(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    demo = ARCHITECTURES["demo"]
    for size in (opening.CLIP_TOKENS, opening.CLIP_TOKENS + 1):
        text = replace(demo.text, layers=1, width=32, heads=2, vocab_size=size)
        small = replace(demo, embed_dim=32, vision=replace(demo.vision, layers=1, width=32, head_width=16), text=text)
        save_pretrained(ProLIP(small), tmp_path / str(size))
    tokenizer = opening.load(tmp_path / str(opening.CLIP_TOKENS)).require_tokenizer()
    assert tokenizer.config.kind == "clip"
    assert "names no tokenizer" in caplog.text
    unknown = opening.load(tmp_path / str(opening.CLIP_TOKENS + 1))
    assert "only images can be encoded" in caplog.text
    assert unknown.encode_images(torch.zeros(2, 3, 36, 36)).mean.shape == (2, 32), "images need no tokenizer"
    for ask in (unknown.encode_texts, unknown.tokenize, unknown.fingerprint, unknown.require_tokenizer):
        with pytest.raises(ValueError, match="does not say which tokenizer it was trained with"):
            ask(*([] if ask in {unknown.fingerprint, unknown.require_tokenizer} else [["a"]]))
