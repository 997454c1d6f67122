"""docs/ablation.py: a small run of it, and its tables."""

import sys

from tests.support.studies import read_study
from tests.support.untrained_run import WORDS
from tests.support.warm_python import warm_python
from tokenizers import Tokenizer, models, pre_tokenizers

from prolip.demo.run import RESULTS


def test_the_ablation_trains_evaluates_and_skips_finished_runs(emoji_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(warm_python(tmp_path)))  # it has imported PyTorch already
    study = read_study("ablation")
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(emoji_data / "tokenizer.json"))
    for place, name in enumerate(("design-twtr", "test-openmoji")):  # a batch is 128 images
        (emoji_data / f"train-{place:06}.tar").write_bytes((emoji_data / f"{name}-000000.tar").read_bytes())

    def options(command, **changes):
        common = {"out": tmp_path / "runs", "data": emoji_data, "seeds": 1, "steps": 2, "size": "tiny"}
        return study.Options(command=command, **common, **changes)

    study.run(options("run", recipes=("ppcl",)))
    run = tmp_path / "runs" / "ppcl-0"
    written = (run / RESULTS).stat().st_mtime_ns
    study.run(options("run", recipes=("ppcl",)))
    assert (run / RESULTS).stat().st_mtime_ns == written
    study.choose(options("choose", checkpoint=str(run)))
    study.run(options("run", recipes=("random", "certain"), batch=8))
    capsys.readouterr()
    study.table(options("table"))
    head, _, *rows = capsys.readouterr().out.split("\n")[:-2]
    assert head == "|  | untrained | ppcl (1) | random (1) | certain (1) |"
    assert len(rows) == len(study.MEASURES)
    study.neighbours(options("neighbours"))
    assert len(capsys.readouterr().out.strip().splitlines()) == 2 + len(study.SCALES)
