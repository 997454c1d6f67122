"""`prolip bench targets`: what is compared with what, when a target is met, and the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prolip.bench import targets
from prolip.bench.config import BenchTargetsConfig
from prolip.bench.decode import AS_THEY_ARE, AT_MOST_512, PROGRESSIVE
from prolip.bench.decoders import DECODERS, LIBJPEG, OURS, PILLOW
from prolip.bench.targets import DECODE_TARGET, PROGRESSIVE_TARGET, Row, json_lines, measure, table
from prolip.bench.task import Measurement, Task, Turn
from prolip.cli import main
from prolip.data import simd_levels
from prolip.errors import UserError

CONFIG = BenchTargetsConfig(images=Path("photos"), gpu_images=2000)


def row(rates: Sequence[float], target: float | None = 1.15, what: str = "loader, as they are") -> Row:
    ours = [Turn(images_per_s=rate, cpu_us=1e6 / rate) for rate in rates]
    floor = [Turn(images_per_s=1000, cpu_us=1000) for _ in rates]
    return Row(what=what, level="avx2", against="libjpeg-turbo alone", ours=ours, theirs=floor, target=target)


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ((1200, 1150, 1300), "met"),
        ((1200, 1100, 1300), "met by median"),
        ((1200, 1100, 1000), "missed by median"),
        ((1100, 1149, 900), "missed"),
    ],
)
def test_a_target_is_met_in_all_some_or_no_rounds(rates: Sequence[float], verdict: str) -> None:
    assert row(rates).verdict() == verdict
    assert row(rates, target=None).verdict() == "-"


def test_the_table_shows_ratio_target_and_cores_for_a_gpu() -> None:
    told = list(table(CONFIG, [row((1200, 1250, 1300)), row((500, 500, 500), None, "decode, progressive")], 0.4))
    loader, decoder = told[2:4]
    assert "1.25 (1.20 - 1.30)" in loader
    assert loader.split()[-5:] == ["1.15", "met", "800", "1,250", "1.6"]
    assert decoder.split()[-5:] == ["-", "-", "2,000", "500", "-"]
    assert "one GPU that takes 2,000 images/s" in told[5]
    assert told[-2].startswith("warning: other programs kept 0.4 cores busy")
    record = json.loads(next(json_lines(CONFIG, [row((1200, 1250, 1300))], 0.4)))
    assert record["ratio"] == {"median": 1.25, "least": 1.2, "most": 1.3}
    assert (record["target"], record["cores_per_gpu"], record["others_cores"]) == (1.15, 1.6, 0.4)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")
    return tmp_path


def test_every_simd_level_is_compared_with_the_floor_and_other_decoders(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, str | None]] = []

    def run_task(task: Task, level: str | None) -> Measurement:
        loaded.append((task.contender, level))
        assert len(task.shards) >= 4 * task.batch_size, "more samples than the queue holds"
        numbers = {"first_batch_s": 0.0, "rss_mb": 0.0, "pss_mb": 0.0, "import_mb": 0.0}
        return Measurement(images_per_s=100, cpu_us=10, others_cores=0.2, **numbers)

    monkeypatch.setattr(targets, "run_task", run_task)
    monkeypatch.setattr(targets, "DECODE_IMAGES", 1)
    for name in DECODERS.keys() - {OURS, LIBJPEG, PILLOW}:
        monkeypatch.delitem(DECODERS, name)
    config = BenchTargetsConfig(images=photos, repeats=1)
    rows, others_cores = measure(config, lambda _: None)
    levels = simd_levels()[::-1]
    assert loaded == [*(("prolip", level) for level in levels), ("decode-only", None)] * 2
    assert others_cores >= 0.2
    assert [(found.what, found.level) for found in rows] == [
        (f"{what}, {files}", level)
        for what, sets in {
            "loader": (AS_THEY_ARE, AT_MOST_512),
            "decode": (AS_THEY_ARE, AT_MOST_512, PROGRESSIVE),
        }.items()
        for files in sets
        for level in levels
    ]
    by_name = {(found.what, found.level): found for found in rows}
    assert by_name["decode, progressive", levels[0]].against == LIBJPEG
    assert by_name["decode, progressive", levels[0]].target == PROGRESSIVE_TARGET
    assert by_name["decode, as they are", levels[0]].target == DECODE_TARGET
    assert by_name["decode, as they are", "portable"].target is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": ("portable,mmx",)}, "levels is 'mmx': this processor can run"),
        ({"gpu_images": 0}, "gpu_images is 0"),
    ],
)
def test_wrong_levels_and_options_are_named(changes: dict[str, Any], message: str) -> None:
    values = {"images": Path("photos"), **changes}
    with pytest.raises(UserError, match=message):
        measure(BenchTargetsConfig(**values), lambda _: None)


def test_a_folder_without_photographs_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "targets", "--images", str(tmp_path)]) == 2
    assert "no folder of JPEG files" in capsys.readouterr().err
