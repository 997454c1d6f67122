"""Checkpoints in the hub's layout, released training files, our runs, and other sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.support.untrained_run import write_checkpoint

from prolip.models import ModelConfig, ProLIP, TextConfig, VisionConfig
from prolip.models.hub import ModelCard, save_pretrained
from prolip.models.position_tables import resize_image_positions, resize_text_positions, resize_token_table
from prolip.models.weights import WeightsError, load_state
from prolip.pretrained import sources as sources_module
from prolip.pretrained.sources import load_network, read_config

CONFIG = ModelConfig(
    embed_dim=16,
    vision=VisionConfig(layers=1, width=16, head_width=8, patch_size=4, image_size=12, embed_unc=True),
    text=TextConfig(layers=1, width=16, heads=2, context_length=6, vocab_size=30, log_var_source="unc"),
    init_logit_bias=-10.0,
)


@pytest.fixture
def model() -> ProLIP:
    torch.manual_seed(0)
    return ProLIP(CONFIG)


def assert_same(loaded: ProLIP, model: ProLIP) -> None:
    expected = model.state_dict()
    found = loaded.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_model_saved_in_the_hub_layout_loads_equal(model: ProLIP, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    loaded = load_network(tmp_path / "saved")
    assert loaded.config == CONFIG
    assert not loaded.training
    assert_same(loaded, model)
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        assert file.metadata() is None
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert list(config) == sorted(config)
    assert "not stated" in (tmp_path / "saved" / "README.md").read_text()


def test_the_card_is_written_as_given_and_tensors_in_float32(model: ProLIP, tmp_path: Path) -> None:
    save_pretrained(model.double(), tmp_path, card=ModelCard(data="images | emoji", licence="mit", steps=12_000))
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    for row in (
        "| trained on | images \\| emoji |",
        "| steps | 12,000 |",
        "| samples seen | not stated when it was saved |",
    ):
        assert row in card
    assert load_network(str(tmp_path)).logit_scale.dtype == torch.float32


def test_a_hub_repository_is_fetched_by_its_name(
    model: ProLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(model, tmp_path)
    asked = []

    def fetch(repository: str, cache_dir: None) -> Path:
        assert cache_dir is None
        asked.append(repository)
        return tmp_path

    monkeypatch.setattr(sources_module, "_download", fetch)
    assert_same(load_network("hf-hub:someone/model"), model)
    assert asked == ["someone/model"]


def test_a_run_folder_loads_its_newest_checkpoint(model: ProLIP, tmp_path: Path) -> None:
    older = ProLIP(CONFIG)
    for step, saved in ((9, older), (10, model)):
        newest = write_checkpoint(tmp_path / "checkpoints", saved, "", step=step)
    assert_same(load_network(tmp_path), model)
    assert_same(load_network(newest), model)
    assert_same(load_network(tmp_path / "checkpoints" / "step_000000009"), older)
    assert read_config(tmp_path) == CONFIG


@pytest.mark.parametrize("form", ["released", "data-parallel", "bare", "safetensors"])
def test_training_checkpoints_of_every_layout_load(model: ProLIP, tmp_path: Path, form: str) -> None:
    state = model.state_dict()
    path = tmp_path / ("epoch_3.safetensors" if form == "safetensors" else "epoch_3.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "bare":
        torch.save(state, path)
    else:
        prefix = "module." if form == "data-parallel" else ""
        named = {prefix + name: tensor for name, tensor in state.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": named, "optimizer": {"state": {}}}, path)
    assert_same(load_network(path, config=CONFIG), model)
    with pytest.raises(WeightsError, match="carries no architecture"):
        load_network(path)


def test_unexpected_tensors_are_named_with_the_nearest_name(model: ProLIP) -> None:
    state = model.state_dict()
    state["visual.class_embeding"] = state.pop("visual.class_embedding")
    state["text.cls_emb"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        load_state(model, state)
    message = str(caught.value)
    assert "missing    visual.class_embedding [16] (nearest: visual.class_embeding)" in message
    assert "unexpected visual.class_embeding [16] (nearest: visual.class_embedding)" in message
    assert "misshapen  text.cls_emb is [3], the model's is [16]" in message


def test_a_misshapen_tensor_is_named_with_the_nearest_of_its_shape(model: ProLIP) -> None:
    state = model.state_dict()
    c_fc, c_proj = (f"visual.transformer.resblocks.0.mlp.{name}.weight" for name in ("c_fc", "c_proj"))
    state[c_fc], state[c_proj] = state[c_proj], state[c_fc]
    with pytest.raises(WeightsError) as caught:
        load_state(model, state)
    expected = f"misshapen  {c_fc} is [16, 64], the model's is [64, 16] (nearest of that shape: {c_proj})"
    assert expected in str(caught.value)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="neither a file nor a folder"):
        load_network(tmp_path / "absent.pt")
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        load_network(tmp_path)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list"):
        load_network(tmp_path / "list.pt")
    torch.save({"model": Path("code")}, tmp_path / "code.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("code.pt", "text.pt", "text.safetensors"):
        with pytest.raises(WeightsError, match=rf"{name} is not a checkpoint: "):
            load_network(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "no_tensors.pt")
    with pytest.raises(WeightsError, match="epoch is a int"):
        load_network(tmp_path / "no_tensors.pt")


@pytest.mark.parametrize("form", ["official", "corrected"])
def test_a_checkpoint_of_another_size_needs_resize(model: ProLIP, tmp_path: Path, form: str) -> None:
    save_pretrained(model, tmp_path)
    larger = replace(
        CONFIG,
        vision=replace(CONFIG.vision, image_size=(16, 20)),
        text=replace(CONFIG.text, context_length=9, vocab_size=40),
    )
    with pytest.raises(WeightsError, match=r"misshapen  visual\.positional_embedding is \[11, 16\]"):
        load_network(tmp_path, config=larger)
    loaded = load_network(tmp_path, config=larger, resize="official" if form == "official" else "corrected")
    kept = loaded.text.positional_embedding[-2:].detach()
    assert torch.equal(kept, model.text.positional_embedding[-2:].detach()) == (form == "corrected")
    specials = loaded.visual.positional_embedding[:2].detach()
    assert torch.equal(specials, model.visual.positional_embedding[:2].detach()) == (form == "corrected")
    assert torch.equal(loaded.text.token_embedding.weight[:30], model.text.token_embedding.weight)


def test_a_missing_bias_is_an_error_unless_resize_is_set(model: ProLIP) -> None:
    state = model.state_dict()
    del state["logit_bias"]
    with pytest.raises(WeightsError, match="missing    logit_bias"):
        load_state(model, state)
    load_state(model, state, resize="corrected")
    assert float(model.logit_scale.detach().exp()) == pytest.approx(10)


def test_tables_of_the_right_size_stay_and_impossible_resizes_are_refused() -> None:
    table, own = torch.randn(6, 4), torch.randn(6, 4)
    for form in ("official", "corrected"):
        assert resize_image_positions(table[None], own, (2, 2), form).equal(table)
        assert resize_text_positions(table, 6, 2, form).equal(table)
    with pytest.raises(ValueError, match="a square of patches"):
        resize_image_positions(torch.randn(7, 4), own, (2, 2), "corrected")
    with pytest.raises(ValueError, match="2 position rows are not 2 special rows and a square of patches"):
        resize_image_positions(torch.randn(2, 4), own, (2, 2), "corrected")
    with pytest.raises(
        ValueError, match="22 text position rows cannot become 130: 20 first and 2 special rows are kept"
    ):
        resize_text_positions(torch.randn(22, 4), 130, 2, "corrected")
    with pytest.raises(ValueError, match="no row can be dropped"):
        resize_token_table(torch.randn(7, 4), own)
    with pytest.raises(ValueError, match="the width must agree"):
        resize_token_table(torch.randn(3, 5), own)
