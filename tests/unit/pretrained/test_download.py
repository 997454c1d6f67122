"""Files from hub repositories: cache, offline mode, and one sentence if a download fails."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import save_file
from tests.support.hub import GATED, serving
from tests.support.released_hub import write_released

import prolip
from prolip.errors import UserError
from prolip.models.released import list_models
from prolip.pretrained.download import DownloadError, hub_file

MODEL = list_models()[0]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """A hub with the first released model; its repositories' folder."""
    models = tmp_path / "hub" / "models"
    write_released(models, MODEL)
    with serving(tmp_path, tmp_path / "cache"):
        yield models


def test_cached_files_are_used_offline(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_file(MODEL.repository, "absent.json") is None
    first = hub_file(MODEL.repository, "config.json")
    assert first is not None
    assert first.read_bytes() == (hub / MODEL.repository / "config.json").read_bytes()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_file(MODEL.repository, "config.json") == first


def test_a_cached_model_loads_offline_with_its_tokenizer(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prolip.load(MODEL.name).encode_texts(["a cat", "a dog"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    after = prolip.load(MODEL.name).encode_texts(["a cat", "a dog"])
    assert torch.equal(before.mean, after.mean)


def test_hf_hub_offline_forbids_downloads(hub: Path, tmp_path: Path) -> None:
    prolip.load(MODEL.name)
    code = f"""if True:
        import prolip
        print(prolip.load({MODEL.name!r}, device="cpu").encode_texts(["a cat"]).mean.shape, flush=True)
        prolip.load({MODEL.name!r}, device="cpu", cache_dir={str(tmp_path / "empty")!r})
    """
    there = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=os.environ | there, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "torch.Size([1, 32])\n"), found.stderr
    assert found.stderr.splitlines()[-1].endswith(
        f"{MODEL.repository}: config.json cannot be downloaded: HF_HUB_OFFLINE is set, and the cache does not have it"
    )


def test_cache_dir_sets_the_cache_folder(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    model = prolip.load(MODEL.name, cache_dir=mine)
    assert {path.name for path in mine.glob("models--*")} == {
        f"models--{name.replace('/', '--')}" for name in (MODEL.repository, MODEL.tokenizer)
    }
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert prolip.load(MODEL.name, cache_dir=mine).fingerprint() == model.fingerprint()


def test_download_errors_are_one_sentence(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hub / "me" / "gated").mkdir(parents=True)
    (hub / "me" / "gated" / GATED).touch()
    (hub / "me" / "empty").mkdir()
    messages = {
        "hf-hub:me/absent": "me/absent: the hub has no such repository, or it is private and `hf auth login` is needed",
        "hf-hub:me/gated": "me/gated: access must be granted on its page, and `hf auth login` must know your token",
        "hf-hub:me/empty": "me/empty has no config.json, which the hub's layout needs; for a model of open_clip, write "
        "open_clip:hf-hub:me/empty",
        "hf-hub:no repository": "no repository is not a hub repository: it must be OWNER/NAME",
        f"{MODEL.name}@v9": f"{MODEL.repository}@v9: the repository has no revision 'v9'",
    }
    for source, message in messages.items():
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            prolip.load(source)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between huggingface_hub's attempts
    why = f"the hub cannot be reached ({address}), and the cache does not have it"
    with pytest.raises(DownloadError, match=re.escape(f"{MODEL.repository}: config.json cannot be downloaded: {why}")):
        prolip.load(MODEL.name, cache_dir=tmp_path / "new")


def test_a_download_that_is_cut_again_and_again_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    http_error = HfHubHTTPError.__bases__[0]  # of the client's HTTP library; the client raises it after five attempts

    def cut(*words: object, **settings: object) -> str:
        raise http_error("peer closed the connection")

    monkeypatch.setattr("prolip.pretrained.download.hf_hub_download", cut)
    with pytest.raises(DownloadError, match=r"me/cat: model\.bin cannot be downloaded: peer closed the connection"):
        hub_file("me/cat", "model.bin")


def test_without_its_tokenizer_a_model_still_encodes_images(hub: Path) -> None:
    for file in (hub / MODEL.tokenizer).iterdir():
        file.unlink()
    model = prolip.load(MODEL.name)
    assert model.encode_images(torch.zeros(1, 3, 224, 224)).mean.shape == (1, 32)
    with pytest.raises(ValueError, match=f"{MODEL.tokenizer} has no tokenizer.json"):
        model.encode_texts("a cat")
    with pytest.raises(ValueError, match=r"absent\.json"):
        prolip.load(MODEL.name, tokenizer="absent.json")


def test_pickled_weights_are_loaded_if_there_is_no_safetensors(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub / MODEL.repository
    expected = prolip.load(MODEL.name).network.state_dict()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has neither model\.safetensors nor pytorch_model\.bin"):
        prolip.load(MODEL.name, cache_dir=hub.parent / "other")
    torch.save(expected, folder / "pytorch_model.bin")
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        found = prolip.load(MODEL.name, cache_dir=hub.parent / "another").network.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    save_file({name: 2 * tensor for name, tensor in expected.items()}, folder / "model.safetensors")
    both = prolip.load(MODEL.name, cache_dir=hub.parent / "both").network.state_dict()
    assert all(torch.equal(both[name], 2 * tensor) for name, tensor in expected.items()), "the pickle comes second"
    assert not list((hub.parent / "both").rglob("pytorch_model.bin"))
