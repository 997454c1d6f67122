"""`prolip bench data` on tiny shards: its figures and its errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.images import encode
from tests.support.shards import write_tar
from tests.support.warm_python import warm_python

from prolip.bench import contender, proc_stats
from prolip.bench.config import BenchDataConfig
from prolip.bench.data import BASELINES, contenders, json_lines, measure, table
from prolip.bench.task import Measurement, Task
from prolip.cli import main
from prolip.data import StoreConfig, decode_only, expand_shards
from prolip.errors import UserError

KEYS = {"name", "recipe", "threads", "images_per_s", "min", "max", "rss_mb", "first_batch_s"}


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders do not import PyTorch for themselves: how they start is not the question."""
    monkeypatch.setattr(sys, "executable", str(warm_python(tmp_path)))


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("shards") / "0.tar"
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    picture = encode(Image.fromarray(noise), "jpeg")
    write_tar(path, [(f"{n}.{kind}", data) for n in range(6) for kind, data in (("jpg", picture), ("txt", b"a"))])
    return str(path)


def task(name: str, shard: str, recipe: str = "full") -> Task:
    assert recipe in {"full", "plain"}
    return Task(
        contender=name,
        shards=(shard,),
        recipe="full" if recipe == "full" else "plain",
        threads=1,
        images=8,
        batch_size=2,
        image_size=16,
    )


def run(rate: float, stage_us: dict[str, float] | None = None) -> Measurement:
    return Measurement(
        images_per_s=rate,
        cpu_us=1e6 / rate,
        others_cores=0.01,
        first_batch_s=0.2,
        rss_mb=500,
        pss_mb=400,
        import_mb=300,
        stage_us=stage_us or {},
    )


@pytest.mark.usefixtures("warm")
def test_bench_data_measures_from_the_command_line(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--threads", "1", "--repeats", "1", "--num_images", "8", "--batch_size", "2", "--json"]
    assert main(["bench", "data", "--shards", shard, "--recipe", "plain", *words]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == ["prolip", "decode-only"]
    for row in rows:
        assert row.keys() >= KEYS
        assert (row["recipe"], row["threads"]) == ("plain", 1)
        assert row["min"] <= row["images_per_s"] <= row["max"]
        assert row["rss_mb"] >= row["import_mb"] > 0


@pytest.mark.parametrize("recipe", ["full", "plain"])
def test_our_loader_reports_speed_and_cpu_time_by_stage(shard: str, recipe: str) -> None:
    measured = contender.CONTENDERS["prolip"](task("prolip", shard, recipe))
    assert measured.images_per_s > 0
    assert {"read", "decode", "augment"} <= measured.stage_us.keys()
    assert sum(measured.stage_us.values()) == pytest.approx(measured.cpu_us)
    assert contender.CONTENDERS["prolip-float32"](task("prolip-float32", shard, recipe)).images_per_s > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("recipe", ["full", "plain"])
def test_baselines_return_normalised_images_and_token_ids(shard: str, recipe: str) -> None:
    from prolip.bench import baselines

    makers = {"hand-made": baselines.hand_made_batches, "webdataset": baselines.webdataset_batches}
    for name, make in makers.items():
        images, ids = next(make(task(name, shard, recipe)))
        assert tuple(images.shape) == (2, 3, 16, 16)
        assert images.is_floating_point()
        assert -3 < float(images.min()) < 0 < float(images.max()) < 3
        assert tuple(ids.shape) == (2, 77)


@pytest.mark.usefixtures("warm")
def test_shards_with_less_than_a_batch_are_named(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "data", "--shards", shard, "--repeats", "1", "--num_images", "8"]) == 2
    said = capsys.readouterr().err
    assert "batch_size is 256" in said
    assert "an epoch has 6" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"against": ("webdataset,fastest",)}, "against is 'fastest': it must be one of webdataset"),
        ({"threads": 0}, "threads is 0"),
        ({"repeats": 0}, "repeats is 0"),
    ],
)
def test_wrong_contenders_and_options_are_named(changes: dict[str, object], message: str) -> None:
    values = {"shards": ("a.tar",), **changes}
    with pytest.raises(ValueError, match=message):
        contenders(BenchDataConfig(**values))  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "hand-made-cv2", ("torchvision", "no_such_module", "no_other"))
    with pytest.raises(ValueError, match="needs no_such_module and no_other"):
        contenders(BenchDataConfig(shards=("a.tar",), against=("hand-made-cv2",)))


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("webdataset", "webdataset", "webdataset"),
        ("webdataset", "open_clip", "open_clip_torch"),
        ("hand-made", "open_clip", "open_clip_torch"),
        ("hand-made-cv2", "torchvision", "torchvision"),
    ],
)
def test_each_module_of_a_baseline_is_missed_before_anything_runs(
    name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prolip.bench.data.find_spec", lambda asked: None if asked == module else object())
    with pytest.raises(UserError, match=f"against is '{name}': it needs {package}, try `pip install {package}`"):
        contenders(BenchDataConfig(shards=("a.tar",), against=(name,)))


def test_contender_names_split_at_commas_and_are_unique() -> None:
    config = BenchDataConfig(shards=("a.tar",), against=("webdataset,hand-made", "webdataset"))
    assert contenders(config) == ("prolip", "decode-only", "webdataset", "hand-made")


def test_figures_are_medians_and_ratios() -> None:
    config = BenchDataConfig(shards=("a.tar",), repeats=3)
    ours = {"prolip": [run(rate, {"decode": rate}) for rate in (900, 800, 1000)]}
    floor = {"decode-only": [run(1000), run(1200), run(1100)]}
    first = json.loads(next(json_lines(config, ours | floor)))
    assert (first["min"], first["images_per_s"], first["max"]) == (800, 900, 1000)
    assert first["stage_us"] == {"decode": 900}
    other = {"prolip-float32": [run(1300, {"decode": 500, "augment": 90})]}
    lines = list(table(config, ours | floor | other))
    assert "CPU us of prolip by stage: decode 900" in lines
    assert "CPU us of prolip-float32 by stage: decode 500, augment 90" in lines
    assert lines[2].split()[:7] == ["prolip", "900", "800", "-", "1000", "25%", "0.82"]
    assert lines[1].count("of floor") == 1, "a heading names one column"
    assert "batches of 256 at 224 px" in lines[0]
    quick = {"quick": [replace(run(1300), cpu_us=0.0)]}  # less than a tick of the system's clock
    assert list(table(config, ours | floor | quick))[4].split()[9:11] == ["0", "-"]


def test_rounds_that_differ_are_warned_about() -> None:
    config = BenchDataConfig(shards=("a.tar",), repeats=2)
    even, uneven = {"prolip": [run(1000), run(1100)]}, {"x": [run(1000), run(500)]}
    floor = {"decode-only": [run(1000)]}
    told = "\n".join(table(config, even | floor))
    assert "warning" not in told
    *_, last = table(config, even | floor | uneven)
    assert last.startswith("warning: the rounds of x differ by up to 100%: these figures are not exact")
    busy = {"decode-only": [replace(run(1000), others_cores=1.5)]}
    *_, last = table(config, even | busy)
    assert last == "warning: other programs kept 1.5 cores busy, which slows every contender down"


def test_the_size_of_images_reaches_every_contender(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[Task] = []

    def measured(given: Task) -> Measurement:
        tasks.append(given)
        return run(100)

    monkeypatch.setattr("prolip.bench.data.run_task", measured)
    measure(BenchDataConfig(shards=(shard,), image_size=48, repeats=1), ("prolip", "decode-only"), lambda _: None)
    assert [given.image_size for given in tasks] == [48, 48]


def test_decoding_alone_is_timed_and_its_settings_checked(shard: str, tmp_path: Path) -> None:
    calls: list[float] = []
    begun = time.perf_counter()
    images, seconds = decode_only([shard], 20, 2, lambda: calls.append(time.perf_counter()))
    assert images == 20
    assert begun < calls[0] <= time.perf_counter() - seconds
    assert len(calls) == 1
    with pytest.raises(ZeroDivisionError):
        decode_only([shard], 20, 2, lambda: 1 / 0)
    with pytest.raises(ValueError, match="threads is 0"):
        decode_only([shard], 20, 0)
    with pytest.raises(ValueError, match="matches no file"):
        expand_shards([str(tmp_path / "*.tar")], StoreConfig())
    assert expand_shards([shard], StoreConfig()) == [shard]


def test_the_floors_cpu_time_begins_when_its_images_are_loaded(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_to_load(_shards: list[str], images: int, _threads: int, loaded: Callable[[], None]) -> tuple[int, float]:
        begun = time.process_time()
        while time.process_time() < begun + 0.5:
            pass
        loaded()
        return images, 1.0

    monkeypatch.setattr(contender, "decode_only", slow_to_load)
    task = Task(
        contender="decode-only", shards=[shard], recipe="full", threads=1, images=10, batch_size=2, image_size=48
    )
    assert contender.CONTENDERS["decode-only"](task).cpu_us * 10 < 0.4e6


def test_memory_and_time_of_this_process() -> None:
    processes = proc_stats.tree()
    before = proc_stats.cpu_seconds(processes)
    found = proc_stats.memory(processes)
    assert found.peak_rss > 10
    assert found.pss > 10
    assert proc_stats.cpu_seconds(processes) >= before > 0
    assert proc_stats.machine_seconds() > 0
