"""`prolip adapt` from shards to search: a small model of open_clip gets variances from its cached embeddings."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.datacomp_sets import write_open_clip
from tests.support.frozen_pairs import made_up, write_pairs
from tests.support.images import encode, noise
from tests.support.refusals import refusal_of
from tests.support.shards import write_tar

import prolip
from prolip.adapt.config import AdaptOptions, CountedConfig, HeadsConfig
from prolip.adapt.counted import counted_head
from prolip.adapt.run import run_adapt
from prolip.cli import main
from prolip.embeddings.storage import complete_parts
from prolip.losses import LossConfig
from prolip.models.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS
from prolip.store.folder import Folder

COUNT = 24
SHORT = ["--heads.steps", "4", "--heads.batch_size", "8", "--heads.hidden", "8"]
CAPTIONS = [f"a photo of {number} cats" for number in range(COUNT)]


def image(number):
    return encode(noise(number, (32, 31)), "png")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
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


def options(**given):
    return AdaptOptions(**{"embeddings": ("a",), "out": Path("b"), **given})


def source(lab):
    return f"open_clip:local-dir:{lab}/clip"


def adapt(lab, out, *words):
    given = [*f"--embeddings {lab}/name --out {out}".split(), *words, *SHORT]
    assert main(["adapt", *given]) == 0
    return prolip.load(out, device="cpu")


def test_an_adapted_model_keeps_the_means_and_can_search(lab, tmp_path, capsys):
    model = adapt(lab, tmp_path / "model")
    said = capsys.readouterr().out
    assert f"heads on {COUNT} pairs of 16 dimensions" in said
    assert "the frozen model's: 14.29, none" in said
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [ADAPTER_FILE, ADAPTER_WEIGHTS]
    frozen = prolip.load(source(lab), device="cpu")
    texts = model.encode_texts(CAPTIONS)
    assert torch.equal(texts.mean, frozen.encode_texts(CAPTIONS).mean)
    assert len(texts.uncertainty.unique()) > COUNT // 2
    words = [
        "--shards",
        str(lab / "{0..1}.tar"),
        "--what",
        "both",
        "--caption_key",
        "name",
        "--device",
        "cpu",
        "--log_var",
    ]
    assert main([*f"embed --checkpoint {tmp_path}/model --out {tmp_path}/out".split(), *words]) == 0
    manifest, parts = complete_parts(Folder(str(tmp_path / "out")), "text")
    assert manifest.has_variances
    assert manifest.model["network"] == "AdaptedNetwork"
    found = np.concatenate([block.total_var for part in parts for block in part.blocks()])
    np.testing.assert_allclose(found, texts.uncertainty.numpy(), rtol=1e-4)
    ask = [*f"search --embeddings {tmp_path}/out --text".split(), CAPTIONS[3], "--find", "text", "--device", "cpu"]
    capsys.readouterr()
    assert main([*ask, "--score", "mean", "--k", "1", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)[0]["answers"]
    assert answer["key"] == "k3"
    assert answer["uncertainty"] == pytest.approx(float(texts.uncertainty[3]), rel=1e-4)
    assert "inclusion" in answer


def test_variances_are_counted_from_folders_of_texts_and_images(lab, tmp_path, capsys):
    assert main(["adapt", "--method", "counted", "--embeddings", f"{lab}/name", "--out", f"{tmp_path}/model"]) == 0
    assert f"counted from {COUNT} images and {COUNT} texts" in capsys.readouterr().out
    model, frozen = prolip.load(tmp_path / "model", device="cpu"), prolip.load(source(lab), device="cpu")
    texts, images = model.encode_texts(CAPTIONS), model.encode_images([image(number) for number in range(COUNT)])
    assert torch.equal(texts.mean, frozen.encode_texts(CAPTIONS).mean)
    for found, other in ((texts, images), (images, texts)):
        head, _ = counted_head(other.mean, found.mean, frozen.logit_scale, CountedConfig())
        torch.testing.assert_close(found.uncertainty, head.total_var(found.mean), rtol=0.02, atol=1e-4)
    mean = (texts.uncertainty.mean() + images.uncertainty.mean()) / 2
    assert model.logit_bias == pytest.approx(frozen.logit_scale * float(mean), rel=0.02)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("masked", lambda: options(masked=("a", "b"))),
        ("masked", lambda: options(masked=("a",), method="counted")),
        ("counted.strength", lambda: CountedConfig(strength=math.nan)),
        ("loss.contrast", lambda: options(loss=LossConfig(contrast="siglip"))),
        ("heads.batch_size", lambda: HeadsConfig(batch_size=1)),
        ("heads.lr", lambda: HeadsConfig(lr=math.nan)),
        ("heads.seed", lambda: HeadsConfig(seed=2**64)),
    ],
)
def test_unusable_options_are_refused(field, make):
    with refusal_of(field):
        make()


def test_sources_that_do_not_fit_are_refused(lab, tmp_path):
    one, other = ((str(write_pairs(tmp_path / f"{rows}", *made_up(rows, dim))),) for rows, dim in ((1, 16), (20, 7)))
    refused = [
        (f"{tmp_path}/absent", {"embeddings": (str(lab / "name"),), "masked": (str(tmp_path / "absent"),)}),
        (f"{tmp_path}/absent", {"embeddings": (str(tmp_path / "absent"),)}),
        ("embeddings", {"embeddings": one, "checkpoint": source(lab)}),
        ("checkpoint", {"embeddings": (str(lab / "name"),), "checkpoint": "absent"}),
        ("checkpoint", {"embeddings": other, "checkpoint": source(lab)}),
    ]
    for field, given in refused:
        with refusal_of(field):
            run_adapt(options(**given, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_embeddings_of_other_weights_are_refused(lab, tmp_path):
    manifest = json.loads((lab / "general" / "manifest.json").read_text())
    shutil.copytree(lab / "general", tmp_path / "other")
    (tmp_path / "other" / "manifest.json").write_text(json.dumps({**manifest, "weights": "another"}))
    shutil.copytree(lab / "clip", tmp_path / "moved")
    weights = tmp_path / "moved" / "open_clip_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    refused = (
        ("embeddings", {"embeddings": (str(lab / "name"), str(tmp_path / "other"))}),
        ("checkpoint", {"embeddings": (str(lab / "name"),), "checkpoint": f"open_clip:local-dir:{tmp_path}/moved"}),
    )
    for field, options in refused:
        with refusal_of(field):
            run_adapt(AdaptOptions(out=tmp_path / "out", **options))
