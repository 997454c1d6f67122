"""train/ablation.py: its recipes, a small run of it, and its table."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.support.untrained_run import WORDS
from tests.support.warm_python import warm_python
from tokenizers import Tokenizer, models, pre_tokenizers

import prolip
from prolip.decisions import auroc
from prolip.demo.suite import EmojiResults
from prolip.demo.suite.evaluate import gather_captions, read_set, set_names
from prolip.gaussian import Gaussian
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
    return load_config(ablation["words"](recipe, 3, options))


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


def test_the_demo_differs_only_in_length_image_tower_and_optimizer(ablation: dict[str, Any]) -> None:
    demo = load_config(["demo"])
    full = config_of(ablation, "demo", full=True)
    assert (full.model, full.loss) == (demo.model, demo.loss)
    assert full.optim == dataclasses.replace(demo.optim, hidden="adamw", lr=1e-3)  # as the tables were measured
    small = config_of(ablation, "demo")
    assert small.model.text == demo.model.text
    assert small.model.vision.num_patches == 16


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
    found = tmp_path / "runs" / "ppcl-0" / "eval.json"
    written = found.stat().st_mtime_ns
    assert ablation["main"]([*arguments, *chosen]) == 0
    assert found.stat().st_mtime_ns == written
    capsys.readouterr()
    assert ablation["main"]([*arguments, "table"]) == 0
    assert "| ppcl (1) |" in capsys.readouterr().out
    assert ablation["main"]([*arguments, "neighbours"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(ablation["SCALES"])
    evaluated = EmojiResults.from_json(found.read_text()).trained.sets
    rows = ablation["image_doubt"](found.parent, emoji_data)
    assert [row[0] for row in rows] == pytest.approx([each.group_with_var.top1 for each in evaluated[:3]])
    assert {len(row) for row in rows} == {3 + len(ablation["SCALES"])}
    model = prolip.load(found.parent, device="cpu", beside=emoji_data)
    sets = [read_set(emoji_data, name, model.preprocess.size[0]) for name in set_names("test")]
    images, (_, prompts) = sets[0], gather_captions(sets)
    truth, texts = prompts.labels("group", images.samples), [ensemble[0] for ensemble in prompts.texts("group")]
    templates = [text.replace(texts[0], "{}") for text in prompts.texts("group")[0]]
    answers = model.classify(images.images, texts, templates=templates, progress=False)
    wrong = torch.tensor([texts.index(label) for label in answers.labels]) != truth
    assert rows[0][2] == pytest.approx(auroc(answers.uncertainty, wrong), abs=1e-6)
    assert ablation["main"]([*arguments, "doubt", str(found.parent)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| ppcl-0 | ")


def test_the_ablation_table_has_means_and_deviations(ablation: dict[str, Any], emoji_results: EmojiResults) -> None:
    def with_top1(share: float) -> EmojiResults:
        first, *others = emoji_results.trained.sets
        first = dataclasses.replace(first, group=dataclasses.replace(first.group, top1=share))
        trained = dataclasses.replace(emoji_results.trained, sets=[first, *others])
        return dataclasses.replace(emoji_results, trained=trained)

    runs = {"ppcl": [with_top1(share) for share in (0.5, 0.6, 0.7)], "demo": [with_top1(0.25)]}
    head, rule, *rows = ablation["lines"](runs)
    assert head == "|  | untrained | ppcl (3) | demo (1) |"
    assert rule.count("---") == 4
    assert len(rows) == len(ablation["MEASURES"])
    untrained = emoji_results.random.sets[0].group.top1
    assert rows[0] == f"| group, held-out emoji | {100 * untrained:.1f} | 60.0 ± 10.0 | 25.0 |"


def test_each_measure_reads_its_own_figure(ablation: dict[str, Any], emoji_results: EmojiResults) -> None:
    measures, model = ablation["MEASURES"], emoji_results.trained
    pairs = {(pair.general, pair.specific): pair for pair in model.unseen_names.pairs}
    assert measures["P(subgroup > name)"](model) == pairs["subgroup", "name"].share
    not_longer = measures["P(group > subgroup), subgroup not longer"](model)
    assert not_longer == pytest.approx(pairs["group", "subgroup"].share_not_longer, nan_ok=True)
    assert measures["subgroup, held-out emoji and design"](model) == model.sets[2].subgroup.top1
    assert all(
        not measure(model) < 0 and not measure(model) > 1 for measure in measures.values()
    )  # NaN where a set has no such pair


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_calibrated_captions_predict_the_same_number_of_positives(ablation: dict[str, Any], scale: float) -> None:
    noise = torch.Generator().manual_seed(0)
    images, captions = (
        Gaussian(F.normalize(torch.randn(count, 8, generator=noise), dim=1), torch.randn(count, 8, generator=noise) - 4)
        for count in (50, 20)
    )
    total_var = ablation["calibrated_var"](captions, images, scale)
    spread = images.total_var[:, None].double() + total_var
    predicted = (scale * (images.mean.double() @ captions.mean.double().T - spread / 2)).exp().sum(0)
    torch.testing.assert_close(predicted, predicted[0].expand(20))
    assert total_var.std() > 0.01


@pytest.mark.usefixtures("warm")
def test_the_ablation_reports_failures(
    ablation: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path), "--data", str(tmp_path / "absent")]
    assert ablation["main"]([*arguments, "run", "--recipes", "ppcl"]) == 2
    assert not list(tmp_path.glob("*/eval.json"))
    for command in ("table", "neighbours"):
        assert ablation["main"]([*arguments, command]) == 2
        assert "there are no runs" in capsys.readouterr().err
