"""`load`: a frozen model with an adapter behaves like any other model."""

import json
import shutil

import pytest
import torch
from tests.support.images import noise

import prolip
from prolip.errors import UserError
from prolip.inference.model import weights_digest
from prolip.models.adapter import (
    ADAPTER_FILE,
    AdaptedNetwork,
    Adapter,
    Frozen,
    VarianceHead,
    save_adapter,
)
from prolip.models.config import AdapterConfig

LABELS = ["a picture", "an emoji of food", "animals and travel"]


@pytest.fixture(scope="module")
def adapted(lab, tmp_path_factory):
    """An adapter of each model."""
    folder = tmp_path_factory.mktemp("adapted")
    adapt(f"open_clip:local-dir:{lab}/clip", folder / "clip")
    adapt(str(lab / "run"), folder / "run")
    return folder


def adapt(source, out):
    frozen = prolip.load(source, device="cpu")
    dim = frozen.encode_texts("").mean.shape[1]
    torch.manual_seed(0)
    adapter = Adapter(AdapterConfig(embed_dim=dim, hidden=4))
    adapter.set_logits(20.0, -5.0)
    for head in (adapter.image, adapter.text):
        assert isinstance(head, VarianceHead)
        torch.nn.init.normal_(head.log_var.weight)
        torch.nn.init.constant_(head.log_var.bias, -3.0)
    save_adapter(adapter, Frozen(source, weights_digest(frozen.network), None), out, {})


def load(folder):
    return prolip.load(folder, device="cpu")


@pytest.mark.parametrize("name", ["clip", "run"])
def test_means_come_from_the_frozen_model_and_variances_from_the_heads(lab, adapted, name):
    source = f"open_clip:local-dir:{lab}/clip" if name == "clip" else str(lab / "run")
    frozen, model = prolip.load(source, device="cpu"), load(adapted / name)
    images = [noise(seed) for seed in range(3)]
    assert isinstance(model.network, AdaptedNetwork)
    for ours, theirs, head in (
        (model.encode_images(images), frozen.encode_images(images), model.network.adapter.image),
        (model.encode_texts(LABELS), frozen.encode_texts(LABELS), model.network.adapter.text),
    ):
        torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.log_var, head(ours.mean).log_var.detach())
        assert len(ours.uncertainty.unique()) == 3
    assert model.has_variances
    assert model.logit_scale == pytest.approx(20.0)
    assert model.logit_bias == -5.0
    found = model.classify(images, LABELS)
    assert found.match is not None
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(3))
    assert model.preprocess == frozen.preprocess
    assert torch.equal(model.tokenize(LABELS), frozen.tokenize(LABELS))


def test_a_moved_frozen_model_is_found_in_or_next_to_the_folder(lab, adapted, tmp_path):
    expected = load(adapted / "clip").encode_texts(LABELS)
    for name, place in (("inside", tmp_path / "inside"), ("beside", tmp_path)):
        shutil.copytree(lab / "clip", tmp_path / "made" / name / "clip")
        adapt(f"open_clip:local-dir:{tmp_path}/made/{name}/clip", tmp_path / name)
        with_it = load(tmp_path / name).encode_texts(LABELS)
        shutil.move(tmp_path / "made" / name / "clip", place / "clip")
        moved = load(tmp_path / name).encode_texts(LABELS)
        assert torch.equal(moved.log_var, with_it.log_var)
        assert torch.equal(moved.mean, expected.mean)


@pytest.mark.parametrize("key", ["source", "weights"])
def test_a_missing_or_another_frozen_model_is_refused(adapted, tmp_path, key):
    shutil.copytree(adapted / "run", tmp_path / "alone")
    content = json.loads((tmp_path / "alone" / ADAPTER_FILE).read_text())
    content["frozen"][key] = "/elsewhere/siglip"
    (tmp_path / "alone" / ADAPTER_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match="alone"):
        load(tmp_path / "alone")
