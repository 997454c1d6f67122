"""Checkpoints in the hub's layout, released training files, our runs, and other sizes."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.support.small_step import CONFIG
from tests.support.untrained_run import write_checkpoint

from prolip.errors import UserError
from prolip.models import ProLIP
from prolip.models.hub import save_pretrained
from prolip.models.position_tables import resize_image_positions, resize_text_positions, resize_token_table
from prolip.models.weights import WeightsError, load_state
from prolip.pretrained.sources import load_network, read_config


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ProLIP(CONFIG)


def assert_same(loaded, model):
    expected = model.state_dict()
    found = loaded.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_model_saved_in_the_hub_layout_loads_equal(model, tmp_path):
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


def test_a_run_folder_loads_its_newest_checkpoint(model, tmp_path):
    older = ProLIP(CONFIG)
    for step, saved in ((9, older), (10, model)):
        newest = write_checkpoint(tmp_path / "checkpoints", saved, "", step=step)
    assert_same(load_network(tmp_path), model)
    assert_same(load_network(newest), model)
    assert_same(load_network(tmp_path / "checkpoints" / "step_000000009"), older)
    assert read_config(tmp_path) == CONFIG


@pytest.mark.parametrize("form", ["released", "data-parallel", "bare", "safetensors"])
def test_training_checkpoints_of_every_layout_load(model, tmp_path, form):
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
    with pytest.raises(WeightsError, match="epoch_3"):
        load_network(path)


def test_tensors_that_do_not_fit_are_named(model):
    state = model.state_dict()
    state["visual.class_embeding"] = state.pop("visual.class_embedding")
    state["text.cls_emb"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        load_state(model, state)
    for name in (
        "visual.class_embedding [16] (nearest: visual.class_embeding)",
        "visual.class_embeding",
        "text.cls_emb",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize("form", ["official", "corrected"])
def test_a_checkpoint_of_another_size_needs_resize(model, tmp_path, form):
    save_pretrained(model, tmp_path)
    larger = replace(
        CONFIG,
        vision=replace(CONFIG.vision, image_size=(18, 24)),
        text=replace(CONFIG.text, context_length=9, vocab_size=40),
    )
    with pytest.raises(WeightsError, match=r"visual\.positional_embedding"):
        load_network(tmp_path, config=larger)
    loaded = load_network(tmp_path, config=larger, resize="official" if form == "official" else "corrected")
    kept = loaded.text.positional_embedding[-2:].detach()
    assert torch.equal(kept, model.text.positional_embedding[-2:].detach()) == (form == "corrected")
    specials = loaded.visual.positional_embedding[:2].detach()
    assert torch.equal(specials, model.visual.positional_embedding[:2].detach()) == (form == "corrected")
    assert torch.equal(loaded.text.token_embedding.weight[:10], model.text.token_embedding.weight)


def test_tables_of_the_right_size_stay_and_impossible_resizes_are_refused():
    table, own = torch.randn(6, 4), torch.randn(6, 4)
    for form in ("official", "corrected"):
        assert resize_image_positions(table[None], own, (2, 2), form).equal(table)
        assert resize_text_positions(table, 6, 2, form).equal(table)
    for rows in (7, 13):
        with pytest.raises(UserError):
            resize_image_positions(torch.randn(rows, 4), own, (2, 2), "corrected")
    with pytest.raises(UserError):
        resize_text_positions(torch.randn(22, 4), 130, 2, "corrected")
    for shape in ((7, 4), (3, 5)):
        with pytest.raises(UserError):
            resize_token_table(torch.randn(shape), own)


# ---- Untrusted files: each broken one is named before anything large is allocated ----

BIAS = "visual.transformer.resblocks.0.ln_1.bias"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensor: tensor.index_fill(0, torch.tensor([3]), torch.nan),
        lambda tensor: tensor - torch.inf,
        lambda tensor: tensor.to(torch.int64),
    ],
)
def test_nan_infinite_and_integer_weights_are_refused(model, tmp_path, spoil):
    state = dict(model.state_dict())
    state[BIAS] = spoil(state[BIAS])
    save_file(state, save_pretrained(model, tmp_path / "model") / "model.safetensors")
    with pytest.raises(WeightsError, match=BIAS):
        load_network(tmp_path / "model")
    if state[BIAS].is_floating_point():
        model.load_state_dict(state)
        write_checkpoint(tmp_path / "spoiled" / "checkpoints", model, "", step=1)
        with pytest.raises(WeightsError, match=BIAS):
            load_network(tmp_path / "spoiled")


def test_files_that_are_no_checkpoint_are_refused(model, tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"model": Path("code")}, tmp_path / "code.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "no_tensors.pt")
    torch.save({"table": torch.zeros(1).expand(10**9, 16)}, tmp_path / "sparse.pt")
    torch.save(model.state_dict(), whole := tmp_path.parent / "whole.pt")
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:-1000])
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small:
        for name in stored.namelist():
            small.writestr(name, stored.read(name))
    for path in tmp_path.iterdir():
        with pytest.raises(WeightsError, match=rf"^{path}: ") as caught:
            load_network(path, config=CONFIG)
        assert "weights_only" not in str(caught.value), "no advice to switch the check off"
