"""`prolip adapt` from shards to search: a small model of open_clip gets variances from its cached embeddings."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.datacomp_sets import write_open_clip
from tests.support.frozen_pairs import made_up, write_npz
from tests.support.images import encode, noise
from tests.support.shards import write_tar
from tests.support.untrained_run import write_run

import prolip
from prolip.adapt.run import Origin, similarity_lines
from prolip.cli import main
from prolip.embeddings.storage import Manifest, complete_parts
from prolip.models.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS, Adapter, AdapterConfig, Frozen
from prolip.pretrained import Model

COUNT = 24
SHORT = ["--heads.steps", "4", "--heads.batch_size", "8", "--heads.hidden", "8"]
CAPTIONS = [f"a photo of {number} cats" for number in range(COUNT)]


def image(number: int) -> bytes:
    return encode(noise(number, (32, 31)), "png")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of open_clip, two shards, and their embeddings: with names, and with more general captions."""
    folder = tmp_path_factory.mktemp("lab")
    write_open_clip(folder / "clip")
    for shard in range(2):
        members = []
        for number in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
            record = {"name": CAPTIONS[number], "general": "cats"}
            members += [(f"k{number}.png", image(number)), (f"k{number}.json", json.dumps(record).encode())]
        write_tar(folder / f"{shard}.tar", members)
    for key in ("name", "general"):
        words = ["--shards", str(folder / "{0..1}.tar"), "--what", "both", "--caption_key", key, "--device", "cpu"]
        assert main(["embed", "--checkpoint", source(folder), "--out", str(folder / key), *words]) == 0
    return folder


def source(lab: Path) -> str:
    return f"open_clip:local-dir:{lab}/clip"


def adapt(lab: Path, out: Path, *words: str, short: bool = True) -> Model:
    given = ["--embeddings", str(lab / "name"), "--out", str(out), *words, *(SHORT if short else [])]
    assert main(["adapt", *given]) == 0
    return prolip.load(out, device="cpu")


def test_the_manifest_of_embeddings_has_scale_and_bias(lab: Path) -> None:
    manifest, model = Manifest.read(lab / "name"), prolip.load(source(lab), device="cpu")
    assert manifest.logit_scale == pytest.approx(model.logit_scale)
    assert manifest.logit_bias is model.logit_bias is None


def test_an_adapted_model_keeps_the_means_and_can_search(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = adapt(lab, tmp_path / "model")
    said = capsys.readouterr().out
    assert f"heads on {COUNT} pairs of 16 dimensions" in said
    assert "the frozen model's: 14.29, none" in said
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [ADAPTER_FILE, ADAPTER_WEIGHTS]
    frozen = prolip.load(source(lab), device="cpu")
    texts = model.encode_texts(CAPTIONS)
    assert torch.equal(texts.mean, frozen.encode_texts(CAPTIONS).mean)
    assert len(texts.uncertainty.unique()) > COUNT // 2
    words = ["--shards", str(lab / "{0..1}.tar"), "--what", "both", "--caption_key", "name", "--device", "cpu"]
    assert main(["embed", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "out"), *words]) == 0
    manifest, parts = complete_parts(tmp_path / "out", "text")
    assert manifest.has_variances
    assert manifest.model["adapted"] == "AdaptedNetwork"
    found = np.concatenate([block.total_var for part in parts for block in part.blocks()])
    np.testing.assert_allclose(found, texts.uncertainty.numpy(), rtol=1e-4)
    ask = ["search", "--embeddings", str(tmp_path / "out"), "--text", CAPTIONS[3], "--find", "text", "--device", "cpu"]
    capsys.readouterr()
    assert main([*ask, "--score", "mean", "--k", "1", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)[0]["answers"]
    assert answer["key"] == "k3"
    assert answer["uncertainty"] == pytest.approx(float(texts.uncertainty[3]), rel=1e-4)
    assert "inclusion" in answer


def test_several_sources_and_masked_views_are_trained_on(lab: Path, tmp_path: Path) -> None:
    model = adapt(lab, tmp_path / "model", "--masked", str(lab / "general"))
    assert model.has_variances
    notes = json.loads((tmp_path / "model" / ADAPTER_FILE).read_text())["notes"]
    assert notes["masked"] == [str(lab / "general")]
    out = ["--out", str(tmp_path / "both"), *SHORT]
    assert main(["adapt", "--embeddings", str(lab / "name"), str(lab / "general"), *out]) == 0
    assert json.loads((tmp_path / "both" / ADAPTER_FILE).read_text())["notes"]["pairs"] == 2 * COUNT


def test_laplace_and_temperature_keep_the_frozen_model(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = prolip.load(source(lab), device="cpu")
    laplace = adapt(lab, tmp_path / "laplace", "--method", "laplace", short=False)
    assert "prior precision" in capsys.readouterr().out
    assert bool((laplace.encode_texts(CAPTIONS).uncertainty > 0).all())
    assert laplace.logit_scale == pytest.approx(frozen.logit_scale, rel=1e-5)
    assert laplace.logit_bias is None
    scaled = adapt(lab, tmp_path / "scaled", "--method", "temperature", short=False)
    assert not scaled.has_variances
    assert scaled.logit_bias is None
    assert scaled.logit_scale != pytest.approx(frozen.logit_scale)


@pytest.mark.parametrize(("noise", "warned"), [(0.05, True), (1.0, False)])
def test_variances_without_evidence_are_a_warning(
    lab: Path, tmp_path: Path, noise: float, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the model never confuses the pairs, they say nothing about its projections, and the prior's variance stays."""
    pairs = write_npz(tmp_path / "pairs.npz", *made_up(400, 16, noise=noise))
    words = ["--embeddings", str(pairs), "--checkpoint", source(lab), "--method", "laplace"]
    assert main(["adapt", *words, "--out", str(tmp_path / "out")]) == 0
    assert ("the uncertainty is larger than the embeddings" in capsys.readouterr().out) == warned


def test_embeddings_from_other_files_need_the_models_name(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = ["adapt", "--embeddings", str(write_npz(tmp_path / "pairs.npz", *made_up(20, 16)))]
    out = ["--out", str(tmp_path / "model"), *SHORT]
    assert main([*pairs, *out]) == 2
    assert "checkpoint: name the model that made these embeddings" in capsys.readouterr().err
    assert main([*pairs, *out, "--checkpoint", source(lab)]) == 0
    assert bool((prolip.load(tmp_path / "model", device="cpu").encode_texts(CAPTIONS).uncertainty > 0).all())


def test_embeddings_that_the_model_cannot_have_made_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=8)
    pairs = write_npz(tmp_path / "pairs.npz", *made_up(20, 7))
    words = ["--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert main(["adapt", "--embeddings", str(pairs), *words]) == 2
    assert "run have 32 dimensions, and the given ones have 7" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["heads", "laplace", "temperature"])
def test_one_pair_alone_is_refused(lab: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can be learned from a pair without others: heads printed "± nan", Laplace variances of 1e26."""
    pairs = write_npz(tmp_path / "pairs.npz", *made_up(1, 16))
    words = ["--embeddings", str(pairs), "--checkpoint", source(lab), "--method", method]
    assert main(["adapt", *words, "--out", str(tmp_path / "out")]) == 2
    assert f"embeddings: {pairs} holds one pair: each is compared with others" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_may_be_given_by_a_relative_path(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab)
    out = ["--out", str(tmp_path / "model"), "--checkpoint", "open_clip:local-dir:clip", *SHORT]
    assert main(["adapt", "--embeddings", "name", *out]) == 0
    monkeypatch.chdir(tmp_path)
    assert prolip.load(tmp_path / "model", device="cpu").has_variances


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--embeddings", "NAME", "--masked", "absent"],
            "masked: absent is neither a folder of `prolip embed` nor a file",
        ),
        (["--embeddings", "absent"], "embeddings: absent is neither a folder of `prolip embed` nor a file"),
        (["--embeddings", "NAME", "--masked", "NAME", "NAME"], "masked names 2 and embeddings 1"),
        (["--embeddings", "NAME", "--method", "laplace", "--heads.lr", "1"], "belong to the method heads"),
        (["--embeddings", "NAME", "--loss.contrast", "clip"], "loss.contrast is clip"),
        (["--embeddings", "NAME", "--heads.steps", "0"], "heads.steps is 0"),
        (["--embeddings", "NAME", "--heads.batch_size", "1"], "heads.batch_size is 1: it must be at least 2"),
        (["--embeddings", "NAME", "--heads.lr", "nan"], "heads.lr is nan"),
        (["--embeddings", "NAME", "--heads.hidden", "-1"], "heads.hidden is -1"),
        (["--embeddings", "NAME", "--heads.seed", str(2**64)], "it must be from 0 to 2^64 - 1"),
        (["--embeddings", "NAME", "--checkpoint", "absent"], "checkpoint: "),
        (["--embeddings", "NAME", "--out", "LAB"], r"holds files, but no adapter.json"),
        (["--embeddings", "absent", "--out", __file__], "is a file, where a folder is needed"),  # before any work
    ],
)
def test_impossible_options_are_refused_with_the_reason(
    lab: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [{"NAME": str(lab / "name"), "LAB": str(lab)}.get(word, word) for word in words]
    assert main(["adapt", *([] if "--out" in words else ["--out", str(tmp_path / "out")]), *words]) == 2
    said = capsys.readouterr().err.replace("│", " ")  # the parser's own errors are in a box
    assert message in " ".join(said.split())
    assert not (tmp_path / "out").exists()


def test_embeddings_of_two_models_are_refused(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((lab / "general" / "manifest.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for path in (lab / "general").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "manifest.json").write_text(json.dumps({**manifest, "weights": "another"}))
    both = ["--embeddings", str(lab / "name"), str(other), "--out", str(tmp_path / "out")]
    assert main(["adapt", *both]) == 2
    assert "come from different models" in capsys.readouterr().err


def test_a_model_that_did_not_make_the_embeddings_is_refused(
    lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(lab / "clip", tmp_path / "moved")
    words = ["adapt", "--embeddings", str(lab / "name"), "--method", "temperature", "--out", str(tmp_path / "out")]
    moved = ["--checkpoint", f"open_clip:local-dir:{tmp_path}/moved"]
    assert main([*words, *moved]) == 0, "the same weights"
    weights = tmp_path / "moved" / "open_clip_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights)
    capsys.readouterr()
    assert main([*words, *moved]) == 2
    assert f"moved is not the model that made {lab / 'name'}" in capsys.readouterr().err


@pytest.mark.parametrize(("scale", "warned"), [(0.14, True), (1.1, False)])
def test_a_scale_that_collapsed_is_a_warning(scale: float, warned: bool) -> None:
    adapter = Adapter(AdapterConfig(method="heads", embed_dim=4, has_bias=True, hidden=4, means="fixed"))
    with torch.no_grad():
        adapter.logit_scale.fill_(math.log(scale))
    frozen = Frozen(source="open_clip:ViT-B-32", weights=None, tokenizer=None)
    lines = similarity_lines(adapter, Origin(frozen, 24.41, -11.27, has_variances=False))
    assert lines[0].endswith("the frozen model's: 24.41, -11.27")
    assert any("--heads.steps" in line for line in lines) == warned
