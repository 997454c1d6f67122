"""docs/noise.py: a small run of it, and its table."""

import json
import sys
from pathlib import Path

from tests.support.studies import read_study
from tests.support.untrained_run import write_words
from tests.support.warm_python import warm_python


def test_the_study_exchanges_captions_and_counts_the_wrong_pairs_that_are_trained_on(
    emoji_data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "executable", str(warm_python(tmp_path)))  # it has imported PyTorch already
    study = read_study("noise")
    monkeypatch.setitem(study.prepare.__globals__, "TENTH", 0.9)
    write_words(emoji_data / "tokenizer.json")
    for place, name in enumerate(("design-twtr", "test-openmoji")):
        (emoji_data / f"train-{place:06}.tar").write_bytes((emoji_data / f"{name}-000000.tar").read_bytes())
    common = {"out": tmp_path / "study", "data": emoji_data, "seeds": 1, "steps": 2, "batch": 64, "shares": (0.5,)}
    methods = ("all", "selection")
    study.prepare(study.Options(command="prepare", **common))
    folder = tmp_path / "study" / "data-0.5"
    wrong = set(json.loads((folder / "wrong.json").read_text()))
    shard = next(folder.glob("train-*.tar"))
    before, after = (dict(study.members(one / shard.name)) for one in (emoji_data, folder))
    for name in before:
        same = json.loads(before[name]) == json.loads(after[name]) if name.endswith(".json") else True
        assert not same if Path(name).stem in wrong and name.endswith(".json") else same
    study.run(study.Options(command="run", methods=methods, **common))
    told = json.loads((tmp_path / "study" / "selection-0.5-0-2" / "noise.json").read_text())
    assert 0 < told["wrong"] < 1
    capsys.readouterr()
    study.table(study.Options(command="table", methods=methods, **common))
    assert len(capsys.readouterr().out.strip().splitlines()) == 2 + len(methods)
