"""docs/guarantees.py: it counts what a calibration decides about the other half of the images."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.support.emoji_shards import write_emoji
from tests.support.studies import read_study
from tests.support.untrained_run import write_run
from torch import Tensor

from prolip.calibration import Calibration, Evidence, Subject, fit_calibration
from prolip.gaussian import Gaussian, csd

SUBJECT = Subject("", "", "", list("abcd"), [])
IMAGES, SEED = 160, 3


@pytest.fixture(scope="module")
def study() -> SimpleNamespace:
    return read_study("guarantees")


def made_up() -> tuple[Evidence, Tensor]:
    """Images of four labels, of which the first has half; most are near their label."""
    draws = torch.Generator().manual_seed(0)
    truth = torch.randint(7, (IMAGES,), generator=draws).sub(3).clamp_min(0)
    images = F.normalize(F.one_hot(truth, 8) + 0.6 * torch.randn(IMAGES, 8, generator=draws), dim=1)
    gaussians = Gaussian(images, torch.randn(IMAGES, 8, generator=draws) - 4)
    classes = Gaussian(torch.eye(4, 8), torch.randn(4, 8, generator=draws) - 4)
    return Evidence(3 * images @ classes.mean.T, csd(gaussians, classes), None, images), truth


def calibrated(score: Any) -> tuple[Calibration, Evidence, Tensor]:
    """A calibration on a random half, and the other half, by nothing but `prolip.calibration`."""
    evidence, truth = made_up()
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(SEED))
    some, rest = order[:80], order[80:]
    found, _ = fit_calibration(evidence.rows(some), truth[some], SUBJECT, score=score, seed=SEED)
    return found, found.with_prior(evidence.rows(rest)), truth[rest]


def test_label_sets_equal_those_of_a_calibration_on_the_other_half(study):
    counted = study.count_sets(study.split(*made_up(), SEED))
    assert counted.shape == (4, 3, 2)
    for place, score in enumerate(study.SCORES):
        found, evidence, truth = calibrated(score)
        for at, guarantee in enumerate(study.GUARANTEES):
            sets = found.label_sets(evidence, guarantee)
            contain, size = counted[place, at].tolist()
            assert contain == pytest.approx(float(sets.gather(1, truth[:, None]).double().mean())), (score, guarantee)
            assert size == pytest.approx(float(sets.sum(dim=1).double().mean())), (score, guarantee)


def test_the_study_prints_a_row_per_image_set(study, tmp_path, capsys):
    write_emoji(tmp_path, {f"test-{design}": 24 for design in ("openmoji", "goog", "twtr")} | {"design-twtr": 3})
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=20)
    study.main(str(tmp_path / "run"), tmp_path, 3)
    sets, labels, limits = (table.splitlines() for table in capsys.readouterr().out.strip().split("\n\n"))
    assert (len(sets), len(labels), len(limits)) == (2 + 6 * 4, 2 + 3, 2 + 6)
    assert sets[0].startswith("| images: fitted + giving thresholds + tested | score | 80%: contain the label | ")
    for table in (sets, labels, limits):
        assert len({line.count(" | ") for line in table}) == 1
    assert sets[2].startswith("| groups, openmoji: 3 + 9 + 12 | `lac` | ")
    # Nine images give no threshold for 95 %: every set has all three labels.
    assert sets[2].endswith(" | 100.0 ± 0.0 | 3.00 |")
