"""`prolip bench decode` on tiny photographs: the decoders, what it measures, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.images import encode

from prolip.bench.config import BenchDecodeConfig
from prolip.bench.decode import (
    AS_THEY_ARE,
    AT_MOST_512,
    PROGRESSIVE,
    Contender,
    Decoded,
    Key,
    contenders,
    measure,
    table,
    write_sets,
)
from prolip.bench.decoder_process import Answers, Request
from prolip.bench.decoders import DECODERS, LIBJPEG, OURS, PILLOW, Decoder
from prolip.bench.task import Turn
from prolip.cli import main
from prolip.errors import UserError


def photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    photo(40, 24).save(folder / "small.jpg")
    photo(600, 30).save(folder / "wide.JPEG")
    photo(8, 8).convert("CMYK").save(folder / "inks.jpg")
    photo(8, 8).save(folder / "other.png")
    return folder


def test_sets_contain_only_photographs_that_all_decoders_read(images: Path, tmp_path: Path) -> None:
    folders = write_sets(images, tmp_path)
    assert [len(list(folder.iterdir())) for folder in folders.values()] == [2, 2, 2]
    assert (folders[AS_THEY_ARE] / "000000.jpg").read_bytes() == (images / "small.jpg").read_bytes()
    with Image.open(folders[AT_MOST_512] / "000001.jpg") as wide:
        assert wide.size == (512, 26)
    with Image.open(folders[PROGRESSIVE] / "000001.jpg") as wide:
        assert wide.size == (600, 30)
        assert wide.info["progressive"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [name for name, decoder in DECODERS.items() if decoder.installed()])
def test_every_decoder_returns_rgb_rows(name: str) -> None:
    image = Image.new("RGB", (24, 16), (200, 100, 0))
    encoded = encode(image, "jpeg", quality=100, subsampling=0)
    pixels = np.asarray(DECODERS[name].open()(encoded))
    assert (pixels.shape, pixels.dtype) == ((16, 24, 3), np.uint8)
    assert np.abs(pixels.astype(int) - np.asarray(image)).max() <= 3


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_one_turn_decodes_all_images(images: Path, tmp_path: Path, workers: int | None) -> None:
    decoded: list[bytes] = []

    def decode(data: bytes) -> np.ndarray:
        decoded.append(data)
        return np.zeros((1, 1, 3), np.uint8)

    folder = write_sets(images, tmp_path)[AS_THEY_ARE]
    found = Answers(decode).time(Request(folder=str(folder), images=33, workers=workers))
    assert found.images_per_s > 0
    if workers is None:
        assert len(decoded) == 33
        assert len(set(decoded)) == 2
    if workers == 0:
        assert len(decoded) == 66, "a DataLoader has one pass to warm up"


def test_bench_decode_measures_from_the_command_line(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", str(images), "--repeats", "1", "--num_images", "2", "--decoders", f"{LIBJPEG},{OURS}"]
    assert main(["bench", "decode", *words, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [OURS, LIBJPEG, PILLOW]
    assert [(row["files"], row["name"]) for row in rows] == [
        (files, name) for files in (AS_THEY_ARE, AT_MOST_512, PROGRESSIVE) for name in names
    ]
    for row in rows:
        assert row["same_pixels"] == 1
        assert row["images_per_s"]["least"] == row["images_per_s"]["most"] > 0
        assert row["workers"] is None


def test_the_table_compares_our_decoder_with_each_other() -> None:
    ours, other = Contender(OURS), Contender(PILLOW)
    turns = {
        ours: [Turn(images_per_s=200, cpu_us=5000), Turn(images_per_s=220, cpu_us=5000)],
        other: [Turn(images_per_s=100, cpu_us=7500), Turn(images_per_s=100, cpu_us=7500)],
    }
    found = Decoded(
        turns={Key(AS_THEY_ARE, None): turns, Key(AS_THEY_ARE, 2): turns},
        same={AS_THEY_ARE: {ours: 1.0, other: 0.5}},
        others_cores=0.7,
        failed={"opencv": "ImportError: no libGL"},
    )
    config = BenchDecodeConfig(images=Path("photos"), repeats=2)
    told = list(table(config, found, ["simplejpeg"]))
    rows = [line for line in told if line.startswith("pillow ")]
    assert len(rows) == 2
    assert "2.10 (2.00 - 2.20) x" in rows[0]
    assert "1.50 (1.50 - 1.50) x" in rows[0]
    assert rows[0].endswith("50.0%")
    assert any("DataLoader, 2 workers" in line for line in told)
    assert told[-3:] == [
        "not installed: simplejpeg",
        "opencv cannot be used: ImportError: no libGL",
        "warning: other programs kept 0.7 cores busy, which slows every contender down",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoders": ("pillow,fastest",)}, "decoders is 'fastest': it must be one of prolip"),
        ({"repeats": 0}, "repeats is 0"),
        ({"workers": (0, -1)}, "workers is -1"),
    ],
)
def test_wrong_decoders_and_options_are_named(changes: dict[str, Any], message: str) -> None:
    values = {"images": Path("photos"), **changes}
    with pytest.raises(UserError, match=message):
        contenders(BenchDecodeConfig(**values))


def test_packages_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "simplejpeg", Decoder("simple-jpeg", "no_such_module", DECODERS[PILLOW].prepare))
    of, absent = contenders(BenchDecodeConfig(images=Path("photos")))
    assert "simplejpeg" in absent
    assert {OURS, LIBJPEG, PILLOW} <= {contender.decoder for contender in of}
    assert "simplejpeg" not in {contender.decoder for contender in of}
    with pytest.raises(UserError, match="needs simple-jpeg, try `pip install simple-jpeg`"):
        contenders(BenchDecodeConfig(images=Path("photos"), decoders=("simplejpeg",)))


@pytest.mark.parametrize("name", [".", "absent"])
def test_a_folder_without_photographs_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "sets").mkdir()
    with pytest.raises(UserError, match="no folder of JPEG files"):
        write_sets(tmp_path / name, tmp_path / "sets")


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 no image", b"text"])
def test_a_photograph_that_cannot_be_decoded_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"images: {tmp_path / 'broken.jpg'} cannot be decoded: ")):
        write_sets(tmp_path, tmp_path / "sets")


def test_a_decoder_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(b"not a photograph")
    with pytest.raises(RuntimeError, match=r"(?s)pillow ended: .*cannot identify image"):
        measure([Contender(PILLOW)], {"broken": tmp_path}, [None], repeats=1, num_images=1, log=sys.stderr.write)


def test_a_package_that_cannot_be_opened_is_left_out(images: Path, tmp_path: Path) -> None:
    folders = {AS_THEY_ARE: write_sets(images, tmp_path)[AS_THEY_ARE]}
    of = [Contender(PILLOW), Contender("no such decoder")]
    found = measure(of, folders, [None], repeats=1, num_images=1, log=sys.stderr.write)
    assert list(found.turns[Key(AS_THEY_ARE, None)]) == [Contender(PILLOW)]
    assert found.failed == {"no such decoder": "KeyError: 'no such decoder'"}
