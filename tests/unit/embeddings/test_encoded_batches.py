"""`prolip embed` with an open_clip model: its own pixels and tokens, no variances."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.datacomp_sets import write_open_clip
from tests.support.images import encode, noise
from tests.support.shards import write_tar

import prolip
from prolip.cli import main
from prolip.embeddings.config import Kind
from prolip.embeddings.storage import Manifest, complete_parts

COUNT = 7
CAPTIONS = [f"a photo of {number} cats" for number in range(COUNT)]


def image(number: int) -> bytes:
    return encode(noise(number, (50 + number, 31)), "png")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of open_clip, two shards with bad samples among them, a folder and lines."""
    folder = tmp_path_factory.mktemp("lab")
    write_open_clip(folder / "shortest")
    write_open_clip(folder / "squash", {"resize_mode": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]})
    for shard, numbers in enumerate((range(4), range(4, COUNT))):
        members = []
        for number in numbers:
            members += [(f"k{number}.png", image(number)), (f"k{number}.txt", CAPTIONS[number].encode())]
            record = {"texts": {"all": [CAPTIONS[number], "another"]}}
            members.append((f"k{number}.json", json.dumps(record).encode()))
        bad = [("x.png", b"no image"), ("x.txt", b"a"), ("x.json", b'{"texts": {"all": "a"}}'), ("y.png", image(9))]
        write_tar(folder / f"{shard}.tar", members + (bad if shard else []))
    (folder / "images").mkdir()
    for number in range(3):
        (folder / "images" / f"{number}.png").write_bytes(image(number))
        (folder / "images" / f"{number}.txt").write_text(CAPTIONS[number])
    Image.open(io.BytesIO(image(3))).save(folder / "images" / "3.tif")
    (folder / "images" / "3.txt").write_text(CAPTIONS[3])
    (folder / "lines.txt").write_text("\n".join(CAPTIONS))
    return folder


def source(lab: Path, resize: str) -> str:
    return f"open_clip:local-dir:{lab}/{resize}"


def embed(lab: Path, out: Path, resize: str, *words: str) -> None:
    model = ["--checkpoint", source(lab, resize), "--device", "cpu", "--batch_size", "3"]
    assert main(["embed", *model, "--out", str(out), *words]) == 0


def rows(out: Path, kind: Kind) -> tuple[list[str], np.ndarray]:
    """Keys and means of all parts; what belongs to a variance says that there is none."""
    keys, means = [], []
    for part in complete_parts(out, kind)[1]:
        keys += part.names()[0]
        for block in part.blocks(log_var=True):
            assert block.log_var is not None
            assert np.isneginf(block.log_var).all()
            assert not block.total_var.any()
            means.append(block.mean)
    return keys, np.concatenate(means)


@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("caption_key", ["txt", "texts.all"])
def test_rows_equal_the_models_embeddings(
    lab: Path, tmp_path: Path, resize: str, caption_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--shards", str(lab / "{0..1}.tar"), "--what", "both", "--caption_key", caption_key]
    embed(lab, tmp_path / "out", resize, *data, "--dtype", "float16")
    model = prolip.load(source(lab, resize), device="cpu")
    expected = {
        "image": model.encode_images([image(number) for number in range(COUNT)]),
        "text": model.encode_texts(CAPTIONS),
    }
    for kind in ("image", "text"):
        keys, means = rows(tmp_path / "out", kind)  # type: ignore[arg-type]
        assert keys == [f"k{number}" for number in range(COUNT)]
        np.testing.assert_allclose(means, expected[kind].mean.numpy(), atol=2e-3)
    manifest = Manifest.read(tmp_path / "out")
    assert (manifest.has_variances, manifest.dim, manifest.bad) == (False, 16, 2)
    assert manifest.model["preprocess"]["resize_mode"] == resize
    lost = "\n".join(manifest.bad_samples)
    assert "x: the image cannot be read" in lost
    assert f"y: its {'txt' if caption_key == 'txt' else 'json'}" in lost.replace("it has no txt", "its txt")
    assert "7 images, 7 captions in 2 parts" in capsys.readouterr().out


def test_folders_and_lines_keep_their_names(lab: Path, tmp_path: Path) -> None:
    words = [
        "--images",
        str(lab / "images"),
        "--lines",
        str(lab / "lines.txt"),
        "--what",
        "both",
        "--rows_per_part",
        "3",
    ]
    embed(lab, tmp_path / "out", "squash", *words)
    model = prolip.load(source(lab, "squash"), device="cpu")
    keys, means = rows(tmp_path / "out", "image")
    assert keys == ["0.png", "1.png", "2.png", "3.tif"]
    files = [lab / "images" / key for key in keys]
    np.testing.assert_allclose(means, model.encode_images(files).mean.numpy(), atol=1e-5)
    keys, means = rows(tmp_path / "out", "text")
    assert keys == ["0.png", "1.png", "2.png", "3.tif", *map(str, range(COUNT))]
    np.testing.assert_allclose(means, model.encode_texts([*CAPTIONS[:4], *CAPTIONS]).mean.numpy(), atol=1e-5)
    embed(lab, tmp_path / "out", "squash", *words)  # and nothing is made again
    assert main(["embed", "--checkpoint", source(lab, "shortest"), "--out", str(tmp_path / "out"), *words]) == 2


def test_texts_alone_need_no_readable_image(lab: Path, tmp_path: Path) -> None:
    embed(lab, tmp_path / "out", "shortest", "--shards", str(lab / "1.tar"), "--what", "text")
    assert rows(tmp_path / "out", "text")[0] == ["k4", "k5", "k6", "x"]


def test_the_towers_compute_in_the_given_precision(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = prolip.load(source(lab, "shortest"), device="cpu", precision="fp16")
    types: set[torch.dtype] = set()
    linear = next(module for module in opened.network.modules() if type(module) is torch.nn.Linear)
    linear.register_forward_hook(lambda _module, _given, found: types.add(found.dtype))
    monkeypatch.setattr("prolip.embeddings.embed_parts.load", lambda *_, **__: opened)
    embed(lab, tmp_path / "out", "shortest", "--shards", str(lab / "0.tar"), "--precision", "fp16")
    assert torch.float16 in types


def test_search_and_rank_work_without_variances(lab: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embed(lab, tmp_path / "out", "squash", "--shards", str(lab / "{0..1}.tar"), "--what", "both")
    (tmp_path / "k5.png").write_bytes(image(5))
    ask = ["search", "--embeddings", str(tmp_path / "out"), "--device", "cpu", "--image", str(tmp_path / "k5.png")]
    capsys.readouterr()
    assert main([*ask, "--k", "2", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)[0]["answers"]
    assert (first["key"], first["caption"]) == ("k5", CAPTIONS[5])
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    assert first["similarity"] > second["similarity"]
    assert not {"uncertainty", "inclusion"} & first.keys()
    assert main([*ask, "--k", "2", "--sheet", str(tmp_path / "found.html")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if " k5 " in line)
    assert line.split()[4:6] == ["-", "-"]
    assert "nan" not in (tmp_path / "found.html").read_text().lower().split("base64")[0]
    rank = ["data", "rank", "--embeddings", str(tmp_path / "out"), "--out", str(tmp_path / "r.csv")]
    assert main([*rank, "--by", "csd"]) == 0
    for by in ("image", "text", "inclusion"):
        assert main([*rank, "--by", by]) == 2
        assert "has no variances, so only --by csd is possible" in capsys.readouterr().err
