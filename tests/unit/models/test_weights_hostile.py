"""Untrusted files: each broken one is named in one sentence, before anything large is allocated."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.untrained_run import write_checkpoint
from torch import Tensor

from prolip.cli import main
from prolip.models import ModelConfig, ProLIP, TextConfig, VisionConfig, weights
from prolip.models.hub import save_pretrained
from prolip.models.weights import ForeignFileError, WeightsError, load_state
from prolip.pretrained.open import load
from prolip.pretrained.sources import load_network

CONFIG = ModelConfig(
    embed_dim=16,
    vision=VisionConfig(layers=1, width=16, head_width=8, patch_size=4, image_size=12, embed_unc=True),
    text=TextConfig(layers=1, width=16, heads=2, context_length=6, vocab_size=30, log_var_source="unc"),
    init_logit_bias=-10.0,
)
BIAS = "visual.transformer.resblocks.0.ln_1.bias"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported model."""
    torch.manual_seed(0)
    return save_pretrained(ProLIP(CONFIG), tmp_path / "model")


def change(folder: Path, **changes: Any) -> None:
    """Changes config.json; `vision_cfg__layers` is a setting of a block."""
    content = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        block, _, key = name.rpartition("__")
        (content[block] if block else content)[key] = value
    (folder / "config.json").write_text(json.dumps(content))


ABSURD: dict[str, tuple[dict[str, Any], str]] = {
    "many layers": ({"vision_cfg__layers": 10**9}, r"vision.layers is 1,000,000,000 .* but the weights have 1"),
    "few layers": ({"text_cfg__layers": 2}, r"text.layers is 2 .* but the weights have 1"),
    "width": ({"vision_cfg__width": 8 * 10**6}, r"misshapen  visual"),
    "vocabulary": ({"text_cfg__vocab_size": 10**12}, r"misshapen  text.token_embedding.weight"),
    "beyond 64 bits": ({"text_cfg__context_length": 10**30}, r"no model can have the sizes"),
    "overflow": ({"vision_cfg__width": 8 * 10**14}, r"(no model can have the sizes|misshapen)"),
    "image": ({"vision_cfg__image_size": 10**9}, r"misshapen  visual.positional_embedding"),
    "text for a number": ({"vision_cfg__layers": "12"}, "vision.layers"),
    "bool for a number": ({"text_cfg__heads": True}, "text.heads"),
    "fraction": ({"embed_dim": 16.5}, "embed_dim"),
    "none": ({"text_cfg__width": None}, "text.width"),
    "list": ({"vision_cfg__image_size": [1, 2, 3]}, "vision.image_size"),
    "infinite": ({"vision_cfg__mlp_ratio": float("inf")}, "no model can have the sizes"),
    "not a number": ({"init_logit_scale": float("nan")}, "init_logit_scale"),
    "number for a flag": ({"quick_gelu": 1}, "quick_gelu"),
    "block": ({"vision_cfg": [3]}, r"config.json: vision_cfg is \[3\]: it must be a table"),
    "epsilon": ({"vision_cfg__norm_kwargs": {"eps": "x"}}, r"config.json: vision_cfg.norm_kwargs is"),
    "cleaning": ({"text_cfg__tokenizer_kwargs": 7}, r"config.json: text_cfg.tokenizer_kwargs is 7"),
    "long": ({"vision_cfg__layers": "x" * 10**6}, "vision.layers"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_an_absurd_configuration_is_refused_before_anything_is_built(folder: Path, name: str) -> None:
    changes, message = ABSURD[name]
    change(folder, **changes)
    began = time.monotonic()
    with pytest.raises(WeightsError, match=message) as caught:
        load_network(folder)
    assert len(str(caught.value)) < 12_000
    assert time.monotonic() - began < 20  # a billion layers would take hours


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "config.json is nested too deeply"),
        ("", "config.json is not JSON"),
        ("[]", "config.json does not hold a JSON object"),
        (b"\xff\xfe\x00", "config.json is not JSON"),
    ],
)
def test_an_invalid_config_json_is_named(folder: Path, content: str | bytes, message: str) -> None:
    (folder / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(WeightsError, match=rf"{folder}/{message}"):
        load_network(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensor: tensor.index_fill(0, torch.tensor([3]), torch.nan), f"{BIAS} holds NaN or infinity"),
        (lambda tensor: tensor - torch.inf, f"{BIAS} holds NaN or infinity"),
        (lambda tensor: tensor.to(torch.int64), rf"{BIAS} is torch.int64: weights must be floating-point"),
    ],
)
def test_nan_infinite_and_integer_weights_are_refused(
    folder: Path, spoil: Callable[[Tensor], Tensor], message: str
) -> None:
    state = load_file(folder / "model.safetensors")
    state[BIAS] = spoil(state[BIAS])
    save_file(state, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_network(folder)
    model = ProLIP(CONFIG)
    with pytest.raises(WeightsError, match=message):
        load_state(model, state)
    if state[BIAS].is_floating_point():
        model.load_state_dict(state)
        write_checkpoint(folder.parent / "spoiled" / "checkpoints", model, "", step=1)
        with pytest.raises(WeightsError, match=message):
            load(folder.parent / "spoiled")


def test_a_pickle_is_refused_without_advice_to_switch_the_check_off(folder: Path) -> None:
    torch.save({"model": Path("code")}, folder.parent / "code.pt")
    with pytest.raises(WeightsError, match=r"code.pt is not a checkpoint: it holds more than") as caught:
        load_network(folder.parent / "code.pt", config=CONFIG)
    assert "weights_only" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_compressed_and_truncated_pickles_are_refused(folder: Path) -> None:
    state = dict(ProLIP(CONFIG).state_dict())
    path = folder.parent / "model.pt"
    torch.save(state, path)
    packed = folder.parent / "small.pt"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    with pytest.raises(WeightsError, match=r"small.pt is not a checkpoint: torch does not compress"):
        load_network(packed, config=CONFIG)
    state["text.token_embedding.weight"] = torch.zeros(1).expand(10**9, 16)
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"token_embedding.weight of shape \[1000000000, 16\] is not stored in full"):
        load_network(path, config=CONFIG)
    for cut in (10, 1000, path.stat().st_size // 2):
        (folder.parent / "cut.pt").write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(WeightsError, match=r"cut.pt is not a checkpoint"):
            load_network(folder.parent / "cut.pt", config=CONFIG)


# ---- Replaced during a load ----


def export(folder: Path, name: str, out: str) -> Path:
    assert main(["export", str(folder.parent / name), "--out", str(folder.parent / out)]) == 0
    return folder.parent / out


def test_a_load_never_mixes_two_exports(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_REPLACE_SECONDS", 0.0)
    save_pretrained(ProLIP(replace(CONFIG, vision=replace(CONFIG.vision, final_norm="once"))), folder.parent / "second")
    one, two = export(folder, "model", "one"), export(folder, "second", "two")
    read = weights.read_file

    def read_and_replace(path: Path) -> dict[str, Tensor]:
        state = read(path)
        if two.exists():
            for file in two.iterdir():
                file.replace(one / file.name)
            two.rmdir()
        return state

    monkeypatch.setattr(weights, "read_file", read_and_replace)
    found = load_network(one)  # the weights of the first with the configuration of the second would be no error
    assert found.config.vision.final_norm == "once"
    assert torch.equal(found.state_dict()[BIAS], load_file(one / "model.safetensors")[BIAS])
    assert torch.equal(found.visual.proj, load_file(one / "model.safetensors")["visual.proj"])


def test_a_file_from_another_export_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_REPLACE_SECONDS", 0.0)
    save_pretrained(ProLIP(CONFIG), folder.parent / "second")
    one, two = export(folder, "model", "one"), export(folder, "second", "two")
    (two / "model.safetensors").replace(one / "model.safetensors")
    with pytest.raises(ForeignFileError, match=r"one/model.safetensors is not the file that was exported with"):
        load_network(one)
    content = json.loads((one / "inference.json").read_text())
    (one / "inference.json").write_text(json.dumps({**content, "files": {}}))
    load_network(one)


def test_exporting_over_an_open_model_file_keeps_its_bytes(folder: Path) -> None:
    with (folder / "model.safetensors").open("rb") as opened:
        save_pretrained(ProLIP(CONFIG), folder)
        assert opened.read() != (folder / "model.safetensors").read_bytes()
        assert opened.tell() > 0
