"""Every model source that a user may name, and the tokenizer that belongs to it."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.datacomp_sets import write_open_clip
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.errors import UserError
from prolip.models import ARCHITECTURES, ProLIP
from prolip.pretrained import open as opening
from prolip.pretrained.model import Preprocess

CPU = torch.device("cpu")


def test_a_folder_without_a_usable_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json: a model is a run, .* written open_clip:local-dir:/"):
        opening.load(tmp_path)
    with pytest.raises(ValueError, match=r"absent.pt is neither a file nor a folder"):
        opening.load(tmp_path / "absent.pt")


def test_a_bare_state_dict_needs_its_architecture(tmp_path: Path) -> None:
    network = ProLIP(ARCHITECTURES["demo"])
    torch.save(network.state_dict(), tmp_path / "epoch_1.pt")
    with pytest.raises(UserError, match=r"carries no architecture: pass config=ARCHITECTURES\[name\]"):
        opening.load(tmp_path / "epoch_1.pt")
    model = opening.load(tmp_path / "epoch_1.pt", config=ARCHITECTURES["demo"], device="cpu")
    assert model.encode_images(torch.zeros(1, 3, 36, 36)).mean.shape == (1, 128)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"carries no architecture: name its folder {tmp_path}$"):
        opening.load(tmp_path / "epoch_1.pt")


def test_loading_an_open_clip_model_prints_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    opening.load(write_open_clip(tmp_path / "clip"), device="cpu")
    assert caplog.messages == []
    logging.getLogger().info("afterwards all is logged")
    assert len(caplog.messages) == 1


def test_an_exported_model_has_its_tokenizer_and_keep_ratio(tmp_path: Path) -> None:
    write_run(tmp_path / "run", tmp_path / "own.json", context_length=7)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    ours, theirs = (opening.load(tmp_path / name, device="cpu") for name in ("run", "out"))
    assert ours.tokenize(["a picture of food"]).tolist() == theirs.tokenize(["a picture of food"]).tolist()
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.keep_ratio == theirs.keep_ratio is not None


def test_the_fingerprint_changes_with_weights_and_preprocessing(tmp_path: Path) -> None:
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


def test_a_missing_open_clip_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"models of open_clip need open_clip: pip install 'prolip\[open_clip\]'"):
        opening.load("open_clip:ViT-B-32/openai")
