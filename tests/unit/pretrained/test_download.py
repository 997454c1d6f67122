"""Files from hub repositories: cache, offline mode, and one sentence if a download fails."""

import time

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from tests.support.hub import GATED, serving
from tests.support.refusals import refusal_of
from tests.support.released_hub import write_released

import prolip
from prolip.errors import UserError
from prolip.models.released import list_models
from prolip.pretrained.download import DownloadError, hub_file

MODEL = list_models()[0]


@pytest.fixture
def hub(tmp_path):
    """A hub with the first released model; its repositories' folder."""
    models = tmp_path / "hub" / "models"
    write_released(models, MODEL)
    with serving(tmp_path, tmp_path / "cache"):
        yield models


def test_a_cached_model_loads_offline_with_its_tokenizer(hub, monkeypatch):
    assert hub_file(MODEL.repository, "absent.json") is None
    before = prolip.load(MODEL.name).encode_texts(["a cat", "a dog"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    after = prolip.load(MODEL.name).encode_texts(["a cat", "a dog"])
    assert torch.equal(before.mean, after.mean)


def test_cache_dir_sets_the_cache_folder(hub, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    model = prolip.load(MODEL.name, cache_dir=mine)
    assert {path.name for path in mine.glob("models--*")} == {
        f"models--{name.replace('/', '--')}" for name in (MODEL.repository, MODEL.tokenizer)
    }
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert prolip.load(MODEL.name, cache_dir=mine).fingerprint() == model.fingerprint()


def test_download_errors_name_the_repository(hub, tmp_path, monkeypatch):
    (hub / "me" / "gated").mkdir(parents=True)
    (hub / "me" / "gated" / GATED).touch()
    (hub / "me" / "empty").mkdir()
    for source in ("me/absent", "me/gated", "me/empty", "no repository", f"{MODEL.repository}@v9"):
        with pytest.raises(UserError, match=f"^{source}") as error:
            prolip.load(f"hf-hub:{source}")
        assert "\n" not in str(error.value)
    http_error = HfHubHTTPError.__bases__[0]  # of the client's HTTP library; the client raises it after five attempts

    def cut(*words, **settings):
        raise http_error("peer closed the connection")

    monkeypatch.setattr("prolip.pretrained.download.hf_hub_download", cut)
    with pytest.raises(DownloadError) as broken:
        hub_file("me/cat", "model.bin")
    assert broken.value.field == "me/cat"


def test_an_unreachable_hub_is_one_sentence_and_soon(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(DownloadError) as error:
        hub_file("me/cat", "model.bin")
    assert error.value.__context__ is None
    assert time.monotonic() - started < 15, "the hub's own client retries for 23 s"


def test_without_its_tokenizer_a_model_still_encodes_images(hub):
    for file in (hub / MODEL.tokenizer).iterdir():
        file.unlink()
    model = prolip.load(MODEL.name)
    assert model.encode_images(torch.zeros(1, 3, 224, 224)).mean.shape == (1, 32)
    with refusal_of(MODEL.tokenizer):
        model.encode_texts("a cat")
    with refusal_of("tokenizer"):
        prolip.load(MODEL.name, tokenizer="absent.json")
