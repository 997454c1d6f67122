"""docs/native_aspect.py: which pictures are held out, what it measures, and a small run of it."""

import sys

import pytest
import torch
import torch.nn.functional as F
from tests.support.studies import read_study
from tests.support.warm_python import warm_python

from prolip.gaussian import Gaussian

SMALL = "--model.vision.width 32 --model.text.layers 1 --optim.warmup_steps 1"


@pytest.fixture
def study(tmp_path):
    main = read_study("native_aspect").main
    main.__globals__.update(OUT=tmp_path / "runs", TRAINED=80, HELD_OUT=2, SEEDS=2)
    return main.__globals__


def test_held_out_emoji_are_together_in_no_trained_picture(study):
    study["NAMES"] = study["NAMES"][:6]  # so that many sets are drawn again
    rows = study["draw_rows"]()
    trained, held_out = ([frozenset(text.split(", then ")) for text, _ in rows[split]] for split in ("train", "test"))
    assert [len(names) for names in held_out[::8]] == [1, 2, 3, 4, 5, 6]
    assert {len(names) for names in trained} == {1, 2, 3, 4, 5}
    assert not {names for names in held_out if len(names) > 1} & {*trained}
    assert rows == study["draw_rows"]()


def test_measures_tell_lengths_and_directions_apart(study):
    texts = [text for text, _ in study["draw_rows"]()["test"]]
    right = F.one_hot(torch.tensor([texts.index(text) for text in texts])).float()
    wrong = right.clone()
    wrong[8:16].view(2, 2, 2, -1)[:, 1] = right[-1]  # the columns of two emoji
    var = torch.arange(1, 7).repeat_interleave(8)[:, None].expand_as(right)
    captions = Gaussian(right, torch.full_like(right, -9.0))
    found = study["measure"](Gaussian(wrong, (var / 1000 / var.shape[1]).log()), captions, texts)
    by_length, (row, column), uncertainty = found[:6], found[6:8], found[9:]
    assert by_length.tolist() == [100, 50, 100, 100, 100, 100]
    assert row == 100
    assert column == pytest.approx(100 * 5 / 6)
    torch.testing.assert_close(uncertainty, torch.arange(1.0, 7).double(), rtol=1e-4, atol=0)


def test_the_study_builds_trains_and_measures(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(warm_python(tmp_path)))
    study["FLAGS"] = study["FLAGS"].replace("64000", "128")
    study["main"](SMALL.split())
    head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert head.split(" | ")[1:] == [*study["COLUMNS"][:-1], f"{study['COLUMNS'][-1]} |"]
    assert len(rows) == 15
    assert all(row.count("±") == len(study["COLUMNS"]) for row in rows)
