"""docs/adapting.py: its measures of every kind of adapted model."""

from tests.support.frozen_pairs import made_up, write_npz
from tests.support.studies import read_study
from tests.support.untrained_run import write_run

from prolip.adapt import AdaptOptions, run_adapt


def test_the_study_measures_every_method(emoji_data, tmp_path, capsys):
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=20)
    pairs = write_npz(tmp_path / "pairs.npz", *made_up(40, 32))
    for method in ("temperature", "laplace"):
        out = tmp_path / "runs" / f"{method}-new"
        run_adapt(AdaptOptions(embeddings=(str(pairs),), out=out, checkpoint=str(tmp_path / "run"), method=method))
    (tmp_path / "runs" / "laplace-new" / "cost.json").write_text('{"seconds": 61.2}')
    study = read_study("adapting")
    run, other = tmp_path / "run", tmp_path / "none"
    study.table(study.Options(command="table", out=tmp_path / "runs", data=emoji_data, frozen=run, prolip=other))
    head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert head == "|  | frozen | temperature | laplace |"
    table = {row.split(" | ")[0].removeprefix("| "): row.rstrip(" |").split(" | ")[1:] for row in rows}
    assert table["seconds"] == ["–", "–", "–, 61"]
    assert table["right caption in the first 10"][1].startswith("–, ")
    assert table["P(group > name), not longer"][1] == "–", "a model without variances has no order"
    assert "–" not in table["P(group > name), not longer"][0]
    assert table["group, AUROC of image σ²"][2] != "–"
