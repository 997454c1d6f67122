"""`prolip eval noise` against the functions behind it."""

import pytest
import torch
from tests.support.captioned_sets import COUNT, caption
from tests.support.captioned_world import embedded
from tests.support.refusals import refusal_of
from tests.support.suite_results import values

from prolip.cli import main
from prolip.evaluation.config import NoiseOptions
from prolip.evaluation.noise import combined_score, make_wrong
from prolip.evaluation.results import RowId
from prolip.gaussian import csd, inclusion_score
from prolip.metrics.statistics import auroc, average_precision, value_of

CAPTIONS = [caption(number, 0) for number in range(COUNT)]


def run(world, *words):
    return world.run("noise", "--data", str(world.pairs), *words)


def test_every_score_of_a_pair_is_measured_by_the_wrong_pairs_that_it_finds(world):
    results = run(world, "--swap", "0.5", "--kind", "swap", "generic")
    ours, theirs = values(results), values(results, 1)
    images, _, _ = embedded(world.model, world.pairs)
    given, wrong = make_wrong(CAPTIONS, "swap", 0.5, 0)
    texts = world.model.encoder.embed_captions(given)

    def posteriors(similarity):
        logits = world.model.logit_scale / 2 * similarity.double()
        return logits.log_softmax(0).diagonal() + logits.log_softmax(1).diagonal()

    scores = {
        "mean": -(images.mean * texts.mean).sum(1),
        "csd": csd(images, texts).diagonal(),
        "mean_posterior": -posteriors(2 * images.mean @ texts.mean.T - 2),
        "csd_posterior": -posteriors(-csd(images, texts)),
        "inclusion": -inclusion_score(images, texts).sum(1),
        "image_variance": images.total_var,
        "caption_variance": texts.total_var,
    }
    assert len({value_of(auroc, score, wrong) for score in scores.values()}) > 2
    for name, score in scores.items():
        assert ours[RowId("wrong_pair_auroc", by=name, other="swap")] == value_of(auroc, score, wrong)
        precision = ours[RowId("average_precision", by=name, other="swap")]
        assert precision == pytest.approx(value_of(average_precision, score, wrong))
    combined = RowId("wrong_pair_auroc", by="csd_and_variances", other="swap")
    assert 0 <= ours[combined] <= 1
    assert combined not in theirs
    assert RowId("wrong_pair_auroc", by="mean", other="generic") in theirs
    assert any("no variances" in note for note in results["notes"][world.theirs])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_drawn_share_of_captions_is_exchanged(share):
    own = [f"caption {number} of an image" for number in range(50)]
    given, wrong = make_wrong(own, "swap", share, 3)
    assert sorted(given) == sorted(own)
    assert int(wrong.sum()) == round(50 * share)
    assert wrong.tolist() == [new != old for new, old in zip(given, own, strict=True)]
    assert make_wrong(own, "swap", share, 3)[0] == given
    assert make_wrong(own, "swap", share, 4)[0] != given


def test_a_caption_that_stays_the_same_is_not_wrong():
    given, wrong = make_wrong(["dog", "a red dog", "an image"], "truncate", 1.0, 0)
    assert (given, wrong.tolist()) == (["dog", "a red", "an"], [False, True, True])
    given, wrong = make_wrong(["dog", "dog", "an image"], "generic", 1.0, 0)
    assert (given, wrong.tolist()) == (["an image"] * 3, [True, True, False])
    assert not make_wrong(["dog"] * 4, "swap", 1.0, 0)[1].any()


def test_scores_are_combined_by_a_regression_on_other_folds():
    draws = torch.Generator().manual_seed(0)
    wrong = torch.arange(200) % 4 == 0
    noise = torch.randn(200, 40, generator=draws, dtype=torch.float64)
    areas = [value_of(auroc, combined_score(noise, wrong, seed), wrong) for seed in range(4)]
    assert max(areas) < 0.65, "fitted on the same pairs, it would be above 0.8"
    informed = noise.index_add(1, torch.tensor([5]), 4 * wrong.double()[:, None])
    assert value_of(auroc, combined_score(informed, wrong, 0), wrong) > 0.85
    few = torch.arange(200) < 5
    assert combined_score(noise[:, :2], few, 1).isfinite().all(), "each fold has a wrong pair"


@pytest.mark.parametrize("swap", [0.0, 1.0])
def test_a_share_outside_its_range_is_refused(swap):
    with refusal_of("swap"):
        NoiseOptions(checkpoint=("x",), data=("y",), swap=swap)


def test_too_few_wrong_captions_are_refused(world, capsys):
    words = ["eval", "noise", "--checkpoint", world.ours, *f"--data {world.pairs} --out {world.root}/few".split()]
    assert main([*words, "--swap", "0.1"]) == 2
    assert "swap: " in capsys.readouterr().err
