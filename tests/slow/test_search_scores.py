"""docs/search_scores.py: it finds a score that was planted, and measures every score of a model."""

import pytest
import torch
from tests.support.class_folders import write_calibrated_world
from tests.support.studies import read_study


@pytest.fixture(scope="module")
def study():
    return read_study("search_scores")


def test_a_planted_score_is_found_among_others(study):
    draws = torch.Generator().manual_seed(0)
    right = torch.eye(60, 90, dtype=torch.bool)
    noise = torch.randn(60, 90, 2, dtype=torch.float64, generator=draws)
    planted = torch.stack([noise[..., 0], noise[..., 1] + 6 * right], dim=-1)
    counts = torch.ones(1, 60).double()
    figures = {
        name: [float(figure(study.measure(features, right, ~right), counts)) for figure in study.MEASURES.values()]
        for name, features in {"noise": noise[..., :1], "planted": planted}.items()
    }
    assert [figures["noise"][place] for place in (0, 2, 3)] == pytest.approx([0.5, 0.9, 0.1], abs=0.15)
    assert figures["planted"][::2] == pytest.approx([0.98, 0.01], abs=0.03), "whether one is there, images shown"
    assert figures["planted"][3] > 0.9, "queries answered"


@pytest.mark.parametrize("kind", ["text", "image"])
def test_every_score_of_a_model_is_measured(study, tmp_path, capsys, kind):
    write_calibrated_world(tmp_path)
    data, run = str(tmp_path / "mine"), str(tmp_path / "run")
    asked = {"caption_key": "cls", "kind": kind, "num_resamples": 5}
    study.run(study.Options(checkpoint=run, known=data, data=(data,), **asked))
    rows = capsys.readouterr().out.strip().splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == list(study.METHODS)
