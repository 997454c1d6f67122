"""A run of the base model on a GPU, compiled: samples a second, utilisation, memory, and how long it waits for data.

Needs a GPU of some 80 GB: `python -m pytest -m bench -s tests/bench/test_gpu_step.py`. The shards are of made pictures;
what is measured is the last rows of the run's own metrics.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.bench.side_by_side import table
from tests.support.shards import write_tar

SHARDS, SAMPLES = 4, 512
"""Shards, and the samples of each."""
WARM_UP, ROWS, STEPS = 30, 5, 20
"""Steps before the first row that counts, rows, and the steps of each."""
COLUMNS = ("samples_per_s", "mfu", "gpu_peak_gib", "data_wait_share")


def picture(generator: np.random.Generator) -> bytes:
    """A JPEG as large as most photographs on the web are cut to, neither flat nor noise."""
    coarse = Image.fromarray(generator.integers(0, 256, (32, 40, 3), dtype=np.uint8))
    written = io.BytesIO()
    coarse.resize((400, 320), Image.Resampling.BICUBIC).save(written, "JPEG", quality=90)
    return written.getvalue()


def write_shards(folder: Path, shards: int, samples: int) -> str:
    generator = np.random.default_rng(0)
    pictures = [picture(generator) for _ in range(64)]
    for shard in range(shards):
        members = []
        for place in range(samples):
            key = f"{shard:02}{place:05}"
            caption = f"a picture of number {place} of shard {shard} that is neither flat nor noise".encode()
            members += [(f"{key}.jpg", pictures[place % len(pictures)]), (f"{key}.txt", caption)]
        write_tar(folder / f"{shard:02}.tar", members)
    return str(folder / f"{{00..{shards - 1:02}}}.tar")


def rows_of_a_run(folder: Path, pattern: str, *flags: str) -> list[dict[str, float]]:
    """The rows of metrics of a run of the base recipe with other flags."""
    command = [sys.executable, "-m", "prolip.train", "vit-b16-datacomp-1b-1.28b", *flags]
    # CLIP's tokenizer comes with open_clip; its table has more rows than the recipe's, at no cost in time.
    command += ["--data.tokenizer.kind", "clip", "--data.tokenizer.path", "None", "--data.tokenizer.clean", "None"]
    command += ["--data.tokenizer.pad_id", "None", "--model.text.vocab_size", "49408"]
    command += ["--run_dir", str(folder / "run"), "--data.shards", pattern]
    subprocess.run(command, check=True, timeout=3000)
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.bench
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [True, False])
def test_base_model(compiled: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch, steps = 512, WARM_UP + ROWS * STEPS
    flags = ["--batch_size", str(batch), "--samples_seen", str(batch * steps), "--precision", "bf16"]
    flags += ["--log_every", str(STEPS), "--checkpoint_every", str(steps), "--optim.warmup_steps", "10"]
    flags += ["--parallel.compile", str(compiled)]
    rows = rows_of_a_run(tmp_path, write_shards(tmp_path, SHARDS, SAMPLES), *flags)
    counted = [row for row in rows if row["step"] - STEPS >= WARM_UP]
    figures = [statistics.median(row.get(name, float("nan")) for row in counted) for name in COLUMNS]
    rates = [row["samples_per_s"] for row in counted]
    heads = ("card", "compiled", "samples/s", "range", "MFU", "peak GiB", "waiting")
    card = torch.cuda.get_device_name()
    spread = f"{min(rates):,.0f} – {max(rates):,.0f}"
    cells = (f"{figures[0]:,.0f}", spread, f"{figures[1]:.1%}", f"{figures[2]:.1f}", f"{figures[3]:.1%}")
    with capsys.disabled():
        print(table(heads, [(card, "yes" if compiled else "no", *cells)]))
    assert len(counted) >= ROWS - 1
    assert figures[3] < 0.02


@pytest.mark.bench
def test_the_command_of_that_benchmark_runs(tmp_path: Path) -> None:
    small = ["--batch_size", "8", "--samples_seen", "16", "--precision", "fp32", "--log_every", "1"]
    for tower in ("vision", "text"):
        small += [f"--model.{tower}.width", "16", f"--model.{tower}.layers", "1"]
    small += ["--model.vision.head_width", "8", "--model.text.heads", "2", "--model.embed_dim", "16"]
    rows = rows_of_a_run(tmp_path, write_shards(tmp_path, 1, 16), *small, "--parallel.compile", "False")
    assert [row["step"] for row in rows] == [1, 2]
    assert {"samples_per_s", "data_wait_share"} <= rows[-1].keys()
