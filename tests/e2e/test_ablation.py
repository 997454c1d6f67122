"""train/ablation.py: its recipes, a small run of it, and its table."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.untrained_run import WORDS
from tests.support.warm_python import warm_python
from tokenizers import Tokenizer, models, pre_tokenizers

from prolip.demo.run import RESULTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ablation() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "train" / "ablation.py"))


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ablation starts has imported PyTorch already."""
    monkeypatch.setattr(sys, "executable", str(warm_python(tmp_path)))


@pytest.mark.usefixtures("warm")
def test_the_ablation_trains_evaluates_and_skips_finished_runs(
    ablation: dict[str, Any], emoji_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(emoji_data / "tokenizer.json"))
    for place, name in enumerate(("design-twtr", "test-openmoji")):  # a batch is 128 images
        (emoji_data / f"train-{place:06}.tar").write_bytes((emoji_data / f"{name}-000000.tar").read_bytes())
    arguments = ["--out", str(tmp_path / "runs"), "--data", str(emoji_data), "--seeds", "1"]
    chosen = ["run", "--steps", "2", "--size", "tiny", "--recipes", "ppcl"]
    assert ablation["main"]([*arguments, *chosen]) == 0
    found = tmp_path / "runs" / "ppcl-0" / RESULTS
    written = found.stat().st_mtime_ns
    assert ablation["main"]([*arguments, *chosen]) == 0
    assert found.stat().st_mtime_ns == written
    chosen = [*chosen[:-1], "random", "certain"]
    assert ablation["main"]([*arguments, "choose", "--checkpoint", str(found.parents[2])]) == 0
    assert ablation["main"]([*arguments, *chosen, "--batch", "8"]) == 0
    capsys.readouterr()
    assert ablation["main"]([*arguments, "table"]) == 0
    assert "| ppcl (1) | random (1) | certain (1) |" in capsys.readouterr().out
    assert ablation["main"]([*arguments, "neighbours"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(ablation["SCALES"])


def test_the_ablation_table_has_means_and_deviations(ablation: dict[str, Any]) -> None:
    def with_accuracy(share: float) -> dict[str, tuple[float, float]]:
        return dict.fromkeys(ablation["MEASURES"].values(), (share, 0.125))

    runs = {"ppcl": [with_accuracy(share) for share in (0.5, 0.6, 0.7)], "demo": [with_accuracy(0.25)]}
    head, rule, *rows = ablation["lines"](runs)
    assert head == "|  | untrained | ppcl (3) | demo (1) |"
    assert rule.count("---") == 4
    assert len(rows) == len(ablation["MEASURES"])
    assert rows[0] == "| group, held-out emoji | 12.5 | 60.0 ± 10.0 | 25.0 |"
