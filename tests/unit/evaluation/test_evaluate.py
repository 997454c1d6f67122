"""A suite's options reach its files; models and data sets are run one after the other."""

import json
import shutil
import tarfile
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.captioned_world import CaptionedWorld, evaluate
from tests.support.suite_results import hits, result, row, row_of_items

from prolip.cli import main
from prolip.datasets.data_set import FolderMissing
from prolip.errors import UserError
from prolip.evaluation.config import SuiteOptions, ZeroShotOptions
from prolip.evaluation.evaluate import evaluate_sets, run_suite
from prolip.evaluation.results import RowId, SuiteResult, TaskCache, TaskResult
from prolip.store.selection import Chosen, write_selection


def run_toy(model: Any, _: SuiteOptions, cache: TaskCache) -> SuiteResult:
    assert cache.folder.name == "tasks"
    return result(model.name, row("m", "t", 2 * hits(0.5)))


def test_output_folder_and_resample_options_reach_the_result_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.setattr("prolip.evaluation.evaluate.load", lambda source, **_: SimpleNamespace(name=source))
    found = []
    for seed, resamples in ((0, 30), (1, 30), (0, 31)):
        run_suite("toy", SuiteOptions(checkpoint=("a", "b"), seed=seed, num_resamples=resamples), run_toy)
        assert (tmp_path / "evals" / "toy" / "results.html").is_file()
        found.append(json.loads((tmp_path / "evals" / "toy" / "results.json").read_text())["figures"][0]["low"]["a"])
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_resamples", -5),
        ("seed", 2**64),
        ("batch_size", 0),
        ("checkpoint", ()),
        ("checkpoint", ("a", "b", "a")),
        ("data", ()),
        ("data", ("absent",)),
        ("classnames", Path("absent.txt")),
    ],
)
def test_wrong_options_are_refused_before_any_model_is_opened(field, value, tmp_path):
    given = {"checkpoint": ("no-model",), "data": (str(tmp_path),), field: value}
    with pytest.raises(UserError) as error:
        run_suite("toy", ZeroShotOptions(**given, out=tmp_path), run_toy)
    assert error.value.field.startswith(field.rstrip("s"))


def test_a_folder_that_cannot_be_written_or_an_unknown_model_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        run_suite("toy", SuiteOptions(checkpoint=("no-model",), out=tmp_path / "file"), run_toy)
    with pytest.raises(UserError, match="no-model"):
        run_suite("toy", SuiteOptions(checkpoint=("hf-hub:me/b", "no-model"), out=tmp_path), run_toy)


def test_one_model_is_in_memory_at_a_time(tmp_path, monkeypatch):
    class Opened(SimpleNamespace):
        """A model that a weak reference may name."""

    opened = []

    def load(source: str, **_: Any) -> Opened:
        assert all(before() is None for before in opened)
        model = Opened(name=source)
        opened.append(weakref.ref(model))
        return model

    monkeypatch.setattr("prolip.evaluation.evaluate.load", load)
    names = ("open_clip:a/x", "open_clip:b/x", "open_clip:c/x")
    run_suite("toy", SuiteOptions(checkpoint=names, out=tmp_path, num_resamples=0), run_toy)
    assert len(opened) == 3


def test_a_set_that_fails_is_noted_and_the_others_run(tmp_path):
    model = SimpleNamespace(name="m", fingerprint=lambda: "f", has_variances=True)
    options = SuiteOptions(checkpoint=("m",))
    errors = {"wrong": UserError("data", "it has no shard"), "gone": FileNotFoundError("no such folder")}

    def prepare(name: str, source: str) -> tuple[dict[str, Any], Any]:
        assert source == f"a/{name}"
        if name in errors:
            raise errors[name]
        if name.startswith("missing"):
            raise FolderMissing(name, "data")
        return {}, lambda: TaskResult(rows=[row_of_items(RowId("m"), torch.ones(2))], notes=["small"])

    def found(*names: str) -> SuiteResult:
        return evaluate_sets(
            "toy", model, options, {name: f"a/{name}" for name in names}, TaskCache(tmp_path / "tasks"), prepare
        )

    some = found("one", "wrong", "missing 1", "gone", "missing 2", "two")
    assert [row.id.data for row in some.rows] == ["one", "two"]
    failed = ["wrong: data: it has no shard", "gone: no such folder"]
    assert some.notes == ["not in data: missing 1, missing 2", "one: small", *failed, "two: small"]
    with pytest.raises(UserError, match="; ".join(failed)):
        found("wrong", "gone")
    errors["wrong"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        found("one", "wrong")


# ---- On real data sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ["retrieval", "uncertainty"])
def test_sets_of_equal_names_both_have_rows_and_damaged_ones_are_noted(suite, world, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(world.pairs, tmp_path / "other" / world.pairs.name)
    good = [str(world.pairs), str(tmp_path / "other" / world.pairs.name)]
    bad = [str(tmp_path / "empty"), "pipe:cat a.tar", str(tmp_path / "absent.tar")]
    given = [word for source in (*good, *bad, good[0]) for word in ("--data", source)]
    words = ["--num_bins", "3", "--show", "0"] if suite == "uncertainty" else []
    found = evaluate(suite, world.ours, tmp_path / "out", *given, *words)
    assert {row["id"]["data"] for row in found["figures"]} == set(good)
    notes = found["notes"][world.ours]
    assert [note.split(":")[0] for note in notes] == ["empty", "pipe", "absent.tar"]


COMMANDS = {
    "retrieval": ["eval", "retrieval", "--data", "{data}/wds_pairs_test"],
    "uncertainty": ["eval", "uncertainty", "--data", "{data}/wds_pairs_test", "--num_bins", "2"],
    "decisions": [
        *("eval", "decisions", "--data", "{data}/../wds_pairs_test", "--num_folds", "3"),
        *("--out_of_distribution", "{data}/wds_pairs_test"),
    ],
}


@pytest.fixture(scope="module")
def unended(world: CaptionedWorld) -> Path:
    """The pairs, in archives without an end."""
    folder = world.root / "unended"
    shutil.copytree(world.pairs, folder / "wds_pairs_test")
    for shard in folder.rglob("*.tar"):
        with tarfile.open(shard) as archive:
            archive.getmembers()
            end = archive.offset
        with shard.open("r+b") as file:
            file.truncate(end)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_suite_reads_shards_by_the_stores_settings(world, unended, tmp_path, command, capsys):
    words = [word.format(data=unended) for word in COMMANDS[command]]
    words += ["--checkpoint", world.ours, "--out", str(tmp_path)]
    assert main(words) == 2
    assert "require_archive_end" in capsys.readouterr().err
    assert main([*words, "--store.no_require_archive_end"]) == 0
    write_selection(tmp_path / "chosen", [Chosen("other.tar", "", np.zeros(1, np.uint32))])
    assert main([*words, "--store.no_require_archive_end", "--selection", str(tmp_path / "chosen")]) == 2
