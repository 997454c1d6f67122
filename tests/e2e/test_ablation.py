"""train/ablation.py: its recipes, a small run of it, and its table."""

from __future__ import annotations

import runpy
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from tests.support.untrained_run import WORDS
from tests.support.warm_python import warm_python
from tokenizers import Tokenizer, models, pre_tokenizers

from prolip.demo.run import RESULTS
from prolip.train.config import TrainConfig, load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ablation() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "train" / "ablation.py"))


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ablation starts has imported PyTorch already."""
    monkeypatch.setattr(sys, "executable", str(warm_python(tmp_path)))


def config_of(ablation: dict[str, Any], recipe: str, *, full: bool = False) -> TrainConfig:
    options = Namespace(steps=7, data=Path("shards"), out=Path("runs"), full=full)
    return load_config(ablation["arguments"](recipe, 3, options))


def test_each_ablation_recipe_adds_one_thing(ablation: dict[str, Any]) -> None:
    configs = {name: config_of(ablation, name) for name in ablation["RECIPES"]}
    weights = {
        name: (
            one.loss.vib_weight,
            one.loss.inclusion_weight,
            one.data.mask.masked_fraction,
            one.data.mask.general_prob,
        )
        for name, one in configs.items()
    }
    vib, inclusion, masked, general = everything = weights["demo"]
    assert min(everything) > 0
    assert weights == {
        "ppcl": (0, 0, 0, general),  # of no effect where nothing is masked
        "vib": (vib, 0, 0, general),
        "inclusion": (vib, inclusion, 0, general),
        "masking": (vib, inclusion, masked, 0),
        "hierarchical": everything,
        "bottleneck": (1, 0, 0, general),
        "own scale": (0, 0, 0, general),
        "demo": everything,
    }
    own = {name for name, one in configs.items() if one.loss.variance_scale is not None}
    assert own == {"own scale", "demo"}
    for one in configs.values():
        assert (one.total_steps, one.seed, one.cpu_threads) == (7, 3, 1)


@pytest.mark.usefixtures("warm")
def test_the_ablation_trains_evaluates_and_skips_finished_runs(
    ablation: dict[str, Any], emoji_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(emoji_data / "tokenizer.json"))
    for place, name in enumerate(("design-twtr", "test-openmoji")):  # a batch is 128 images
        (emoji_data / f"train-{place:06}.tar").write_bytes((emoji_data / f"{name}-000000.tar").read_bytes())
    arguments = ["--out", str(tmp_path / "runs"), "--data", str(emoji_data)]
    chosen = ["run", "--steps", "2", "--seeds", "1", "--recipes", "ppcl"]
    assert ablation["main"]([*arguments, *chosen]) == 0
    found = tmp_path / "runs" / "ppcl-0" / RESULTS
    written = found.stat().st_mtime_ns
    assert ablation["main"]([*arguments, *chosen]) == 0
    assert found.stat().st_mtime_ns == written
    capsys.readouterr()
    assert ablation["main"]([*arguments, "table"]) == 0
    assert "| ppcl (1) |" in capsys.readouterr().out
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
