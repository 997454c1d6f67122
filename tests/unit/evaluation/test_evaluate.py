"""A suite's options reach its files; models and data sets are run one after the other."""

import json
import math
import shutil
import tarfile
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.support.captioned_world import evaluate
from tests.support.refusals import refusal_of
from tests.support.suite_results import hits, result, row, row_of_items

from prolip.cli import main
from prolip.datasets.data_set import DataSet, FolderMissing
from prolip.errors import UserError
from prolip.evaluation.config import (
    CalibrateOptions,
    CalibrateSearchOptions,
    DecisionsOptions,
    ModelToCalibrate,
    NoiseOptions,
    RetrievalOptions,
    SuiteOptions,
    UncertaintyOptions,
    ZeroShotOptions,
)
from prolip.evaluation.evaluate import evaluate_data, evaluate_sets, run_suite
from prolip.evaluation.results import RowId, TaskCache, TaskResult
from prolip.metrics.config import BprwConfig
from prolip.store.selection import Chosen, write_selection
from prolip.store.typed_tables import plain


def run_toy(model, _, cache):
    assert cache.folder.name == "tasks"
    return result(model.name, row("m", "t", 2 * hits(0.5)))


def test_output_folder_and_resample_options_reach_the_result_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.setattr("prolip.evaluation.evaluate.open_model", lambda source, **_: SimpleNamespace(name=source))
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


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (CalibrateOptions, "fit_share", 1),
        (CalibrateOptions, "num_resamples", 0),
        (CalibrateSearchOptions, "absent_share", 2),
        (DecisionsOptions, "num_folds", 1),
        (NoiseOptions, "swap", 1.0),
        (RetrievalOptions, "image_id_key", "cocoid"),
        (RetrievalOptions, "max_wrong", 0.0),
        (UncertaintyOptions, "num_bins", 1),
        (UncertaintyOptions, "keep_ratio", 1.0),
        (UncertaintyOptions, "blur", math.inf),
        (ZeroShotOptions, "show", -1),
    ],
)
def test_a_setting_out_of_range_is_named(kind, field, value, tmp_path):
    given = {"out": tmp_path} if issubclass(kind, ModelToCalibrate) else {}
    with refusal_of(field):
        kind(checkpoint="x", data="y", **given, **{field: value})


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

    def load(source, **_):
        assert all(before() is None for before in opened)
        model = Opened(name=source)
        opened.append(weakref.ref(model))
        return model

    monkeypatch.setattr("prolip.evaluation.evaluate.open_model", load)
    names = ("open_clip:a/x", "open_clip:b/x", "open_clip:c/x")
    run_suite("toy", SuiteOptions(checkpoint=names, out=tmp_path, num_resamples=0), run_toy)
    assert len(opened) == 3


def test_a_set_that_fails_is_noted_and_the_others_run(tmp_path):
    model = SimpleNamespace(name="m", fingerprint=lambda: "f", has_variances=True)
    options = SuiteOptions(checkpoint=("m",))
    errors = {"wrong": UserError("data", "it has no shard"), "gone": FileNotFoundError("no such folder")}

    def prepare(name, source):
        assert source == f"a/{name}"
        if name in errors:
            raise errors[name]
        if name.startswith("missing"):
            raise FolderMissing(name, "data")
        return {}, lambda: TaskResult(rows=[row_of_items(RowId("m"), torch.ones(2))], notes=["small"])

    def found(*names):
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


def test_a_task_is_run_again_if_its_options_or_what_it_reads_have_changed(tmp_path):
    class Recording(TaskCache):
        """Keeps the key of the last task."""

        def get_or_run(self, name, key, compute):
            self.key = json.dumps(plain(key), default=str)
            return compute()

    def key_of(fingerprint="f", data="d", *read, **changes):
        model = SimpleNamespace(name="m", fingerprint=lambda: fingerprint, has_variances=True)
        options, cache = ZeroShotOptions(checkpoint=("m",), data=("d",), **changes), Recording(tmp_path)
        opened = partial(DataSet, shards=(), classnames=["a"], templates=["{}"], fingerprint=data)
        result = TaskResult(rows=[row_of_items(RowId("m"), torch.ones(2))])
        evaluate_data("toy", model, options, ["d"], cache, opened, lambda *_: result, *read)
        return cache.key

    assert key_of(batch_size=7, num_resamples=3, out=tmp_path, device="cpu") == key_of()
    changed = [{"templates": ("{}!",)}, {"bprw": BprwConfig(seed=1)}, {"seed": 5}, {"precision": "bf16"}]
    keys = [
        key_of(),
        key_of("g"),
        key_of("f", "e"),
        key_of("f", "d", torch.ones(2)),
        *(key_of(**one) for one in changed),
    ]
    assert len(set(keys)) == len(keys)


# ---- On real data sets ----------------------------------------------------------------------------------------------


def test_sets_of_equal_names_both_have_rows_and_damaged_ones_are_noted(world, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(world.pairs, tmp_path / "other" / world.pairs.name)
    good = [str(world.pairs), str(tmp_path / "other" / world.pairs.name)]
    bad = [str(tmp_path / "empty"), "pipe:cat a.tar", str(tmp_path / "absent.tar")]
    given = [word for source in (*good, *bad, good[0]) for word in ("--data", source)]
    found = evaluate("retrieval", world.ours, tmp_path / "out", *given)
    assert {row["id"]["data"] for row in found["figures"]} == set(good)
    notes = found["notes"][world.ours]
    assert [note.split(":")[0] for note in notes] == ["empty", "pipe", "absent.tar"]


COMMANDS = {
    "retrieval": ["eval", "retrieval", "--data", "{data}/wds_pairs_test"],
    "decisions": [
        *("eval", "decisions", "--data", "{data}/../wds_pairs_test", "--num_folds", "3"),
        *("--out_of_distribution", "{data}/wds_pairs_test"),
    ],
}


@pytest.fixture(scope="module")
def unended(world):
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
