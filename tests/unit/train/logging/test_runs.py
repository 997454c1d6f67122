"""`prolip runs`: progress, speed, last and best figures, as text, Markdown, JSON and a page."""

import json
import re
from pathlib import Path

import pytest
from tests.support.refusals import refusal_of

from prolip.train.config.options import RunsOptions
from prolip.train.logging.runs import run_runs


def write(folder: Path, losses: list[float], top1: list[float], num_samples: int = 6400) -> Path:
    folder.mkdir(parents=True)
    rows = []
    for step, loss in enumerate(losses, 1):
        row = {"step": 10 * step, "samples": 640 * step, "loss": loss, "ppcl": loss, "time_s": 20.0 * step}
        rows.append(row | {"samples_per_s": 32.0, "loader/decode": 1.5})
    for step, value in enumerate(top1, 1):
        rows.append({"step": 10 * step, "samples": 640 * step, "val/emoji/top1": value, "val/emoji/top5": 0.9})
    lines = [json.dumps(row) for row in sorted(rows, key=lambda row: row["step"])]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "config.toml").write_text(f"samples_seen = {num_samples}\nbatch_size = 64\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "small", [3.0, 2.0, 2.5], [0.25, 0.5, 0.375])
    write(tmp_path / "lar|ge", [3.0, 1.0], [])
    return tmp_path


def test_the_table_of_runs_has_last_and_best_values(folder):
    lines = run_runs(RunsOptions(folders=(folder,)))
    assert lines == [
        "run         steps  samples  samples/s     time  loss  loss (best)  val/emoji/top1  val/emoji/top1 (best)",
        "lar|ge  20 of 100    1,280         32  0:00:40     1            1               –                      –",
        "small   30 of 100    1,920         32  0:01:00   2.5            2           0.375                    0.5",
    ]


def test_runs_are_printed_as_markdown_and_json(folder):
    runs = (folder / "small", folder / "lar|ge")
    lines = run_runs(RunsOptions(folders=runs, metrics=("val/emoji/top5",), format="markdown"))
    assert lines[0] == "| run | steps | samples | samples/s | time | val/emoji/top5 | val/emoji/top5 (best) |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2:] == [
        "| small | 30 of 100 | 1,920 | 32 | 0:01:00 | 0.9 | 0.9 |",
        "| lar\\|ge | 20 of 100 | 1,280 | 32 | 0:00:40 | – | – |",
    ]
    (text,) = run_runs(RunsOptions(folders=runs, json=True))
    small, large = json.loads(text)
    assert small["steps"] == 30
    assert small["of"] == 100
    assert small["val/emoji/top1 (best)"] == 0.5
    assert large["val/emoji/top1"] is None


def test_a_page_draws_every_figure_of_every_run(folder):
    page = folder / "pages" / "runs.html"
    run_runs(RunsOptions(folders=(folder,), plot=page))
    text = page.read_text(encoding="utf-8")
    titles = re.findall("<title>(.*?)</title>", text)
    names = ["val/emoji/top1", "val/emoji/top5", "loss", "ppcl", "samples_per_s", "loader/decode"]
    assert titles == ["Runs side by side", *names]
    loss = text[text.index("<title>loss</title>") :]
    assert loss[: loss.index("</svg>")].count("<polyline") == 2
    assert "http" not in text
    assert '<div class="card scroll" tabindex="0"' in text, "the arrow keys scroll a wide table"
    run_runs(RunsOptions(folders=(folder,), plot=page, metrics=("loss",)))
    assert re.findall("<title>(.*?)</title>", page.read_text(encoding="utf-8")) == ["Runs side by side", "loss"]


def test_errors_of_the_runs_command_name_the_fault(folder):
    for number in range(7):
        write(folder / f"run{number}", [1.0], [])
    for field, options in (
        (str(folder / "absent"), RunsOptions(folders=(folder / "absent",))),
        ("metrics", RunsOptions(folders=(folder,), metrics=("val/emoji/top2",))),
        ("plot", RunsOptions(folders=(folder,), plot=folder / "page.html")),
    ):
        with refusal_of(field):
            run_runs(options)
