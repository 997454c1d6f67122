"""docs/planted_prompts.py: what it plants, and that all ways are scored on the same images."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tests.support.emoji_shards import write_emoji
from tests.support.studies import read_study
from tests.support.untrained_run import write_run
from torch import Tensor

import prolip
from prolip.gaussian import Gaussian


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    return read_study("planted_prompts")


def near(direction: Tensor, count: int, seed: int) -> Tensor:
    noise = torch.randn(count, len(direction), generator=torch.Generator().manual_seed(seed))
    return F.normalize(direction + 0.05 * noise, dim=1)


class Planted:
    """Three classes along three axes: two good prompts each, and two of the next class. Four images of each class."""

    def __init__(self, study: SimpleNamespace) -> None:
        axes = torch.eye(3, 8)
        rows = [torch.cat([near(axes[c], 2, c), near(axes[(c + 1) % 3], 2, 5 + c)]) for c in range(3)]
        self.labels = torch.arange(3).repeat_interleave(4)
        self.images = Gaussian(torch.cat([near(axes[c], 4, 9 + c) for c in range(3)]), torch.full((12, 8), -6.0))
        means = torch.stack(rows)
        prompts = Gaussian(means, torch.full_like(means, -6.0))
        self.ways = {name: rest for name, *rest in study.classifiers(prompts, self.images, self.labels, 4)}


def test_labelled_images_give_planted_prompts_little_weight(study):
    planted = Planted(study)
    share = {name: float(weights[:, 2:].sum(1).mean()) for name, (_, weights) in planted.ways.items()}
    assert share["even weights"] == pytest.approx(0.5)
    assert share["BPRW, labelled images"] < 0.1
    classifier, _ = planted.ways["BPRW, labelled images"]
    assert bool(((planted.images.mean @ classifier.T).argmax(1) == planted.labels).all())
    for _, weights in planted.ways.values():
        torch.testing.assert_close(weights.sum(1).double(), torch.ones(3, dtype=torch.float64))


def test_images_that_vote_are_not_scored(study, tmp_path):
    counts = {f"test-{design}": 24 for design in ("openmoji", "goog", "twtr")}
    write_emoji(tmp_path, {**counts, "design-twtr": 24})
    run = tmp_path / "run"
    write_run(run, tmp_path / "tokenizer.json", context_length=20)
    groups, other, subgroups, _ = study.held_out_settings(prolip.load(run, device="cpu"), tmp_path)
    assert groups.title.startswith("test-openmoji, 3 groups: ")
    assert other.title.startswith("test-twtr")
    voters = groups.shots >= 0
    assert torch.equal(voters, ~groups.scored)
    assert torch.equal(groups.shots[voters], groups.labels[voters])
    assert torch.bincount(groups.shots[voters]).tolist() == [5, 5, 5]
    assert subgroups.shots is None
    assert bool(subgroups.scored.all())
    found = study.score(groups, "wrong", 2, 2)
    right, weight = found["even weights"]
    assert len(right) == int(groups.scored.sum())
    assert weight == pytest.approx(2 / (2 + len(groups.good[0])))
