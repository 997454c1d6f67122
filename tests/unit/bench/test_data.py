"""`prolip bench data` on tiny shards: its figures and its errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tests.support.forkserver import FORKSERVER
from tests.support.images import encode
from tests.support.refusals import refusal_of
from tests.support.shards import write_tar

from prolip.bench.config import BenchDataConfig
from prolip.bench.contender import Measurement, look, webdataset_batches
from prolip.bench.data import table
from prolip.cli import main

KEYS = [
    "name",
    "recipe",
    "threads",
    "images_per_s",
    "min",
    "max",
    "rss_mb",
    "pss_mb",
    "import_mb",
    "first_batch_s",
    "cpu_us",
    "pixels",
    "padding",
    "others_cores",
]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "0.tar"
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    picture = encode(Image.fromarray(noise), "jpeg")
    write_tar(path, [(f"{n}.{kind}", data) for n in range(6) for kind, data in (("jpg", picture), ("txt", b"a"))])
    return str(path)


def test_every_contender_is_measured_from_the_command_line(shard, capsys, monkeypatch):
    monkeypatch.setattr("multiprocessing.get_context", lambda _: FORKSERVER)  # which has imported PyTorch
    words = [
        "--recipe",
        "plain",
        "--threads",
        "1",
        "--repeats",
        "1",
        "--num_images",
        "8",
        "--batch_size",
        "2",
        "--image_size",
        "16",
        "--json",
    ]
    assert main(["bench", "data", "--shards", shard, *words, "--against", "prolip-float32"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == ["prolip", "decode-only", "prolip-float32"]
    for line in lines:
        assert [key for key in line if key != "stage_us"] == KEYS
        assert (line["recipe"], line["threads"]) == ("plain", 1)
        assert 0 < line["min"] <= line["images_per_s"] <= line["max"]
        assert line["rss_mb"] >= line["import_mb"] > 0
    stages = lines[0]["stage_us"]
    assert {"read", "decode", "augment"} <= stages.keys()
    assert sum(stages.values()) == pytest.approx(lines[0]["cpu_us"], abs=1)
    words += ["--against", "prolip-float32", "--native", "7", "--token_budget", "63"]
    assert main(["bench", "data", "--shards", shard, shard, shard, *words]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    padded, floor, square, float32 = lines
    assert square["name"] == "prolip-square"
    assert (square["pixels"], square["padding"], floor["pixels"]) == (16 * 16, 0, 0)
    assert float32["pixels"] > 4 * 256
    assert 0 < padded["padding"] < 0.5
    assert main(["bench", "data", "--shards", shard, "--repeats", "1"]) == 2
    assert "batch_size" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_published_stack_returns_normalised_images_and_token_ids(shard):
    config = BenchDataConfig(shards=(shard,), threads=1, batch_size=2, image_size=16)
    images, ids = next(webdataset_batches(config, [shard]))
    assert tuple(images.shape) == (2, 3, 16, 16)
    assert -3 < float(images.min()) < 0 < float(images.max()) < 3
    assert tuple(ids.shape) == (2, 77)
    assert look(images) == (2, 2 * 16 * 16, 2 * 16 * 16)


def test_open_clips_stack_fills_its_token_budget_with_patches(shard):
    config = BenchDataConfig(shards=(shard,), threads=1, native=(8, 7), token_budget=140)
    for (images, ids), (rows, length) in zip(
        webdataset_batches(config, [shard]), [(16, 8), (16, 7), (16, 8)], strict=False
    ):
        assert tuple(images["patches"].shape) == (rows, length, 16 * 16 * 3)
        assert tuple(ids.shape) == (rows, 77)
        number, pixels, places = look(images)
        assert (number, places) == (rows, rows * length * 256)
        assert places / 2 < pixels == int(images["patch_valid"].sum()) * 256 < places
        grids = images["patch_coord"].amax(1) + 1
        assert images["patch_valid"].sum(1).tolist() == grids.prod(1).tolist()


def test_wrong_options_are_named():
    for field in ("threads", "repeats", "num_images", "batch_size", "image_size"):
        with refusal_of(field):
            BenchDataConfig(shards=("a.tar",), **{field: 0})


def test_the_table_compares_medians_and_warns_of_inexact_figures():
    def rounds(*rates, others=0.0):
        rest = {"first_batch_s": 0.2, "rss_mb": 500, "pss_mb": 400, "import_mb": 300, "stage_us": {"read": 5.0}}
        return [Measurement(images_per_s=one, cpu_us=1e6 / one, others_cores=others, **rest) for one in rates]

    config = BenchDataConfig(shards=("a.tar",))
    quiet = {"prolip": rounds(1000, 1010, 990), "decode-only": rounds(800, 800, 810)}
    text = "\n".join(table(config, quiet))
    assert "990 - 1010" in text
    assert "1.25" in text
    assert "0.80 x" not in text
    assert "padding" not in text
    assert "warning" not in text
    native = {name: [replace(one, pixels=5e4, padding=0.0123) for one in some] for name, some in quiet.items()}
    text = "\n".join(table(replace(config, native=(196,)), native))
    assert "sequences of 196, 16384 patches per batch" in text
    assert "1.2%" in text
    assert " 20.00" in text  # 1,000 us of 50,000 pixels
    noisy = {**quiet, "webdataset": rounds(100, 130, others=1.5)}
    warnings = [line for line in table(config, noisy) if line.startswith("warning")]
    assert "the rounds of webdataset differ" in warnings[0]
    assert "1.5 cores" in warnings[1]
