"""A suite's options reach its files."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.suite_results import hits, result

from prolip.errors import UserError
from prolip.evaluation.config import SuiteOptions, ZeroShotOptions
from prolip.evaluation.results import SuiteResult, TaskCache, row_of_items
from prolip.evaluation.run import run_suite


def test_output_folder_and_resample_options_reach_the_result_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default they lie in evals/SUITE; the resamples are those of the options."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.setattr("prolip.evaluation.run.load", lambda source, **_: SimpleNamespace(name=source))

    def run(model: Any, _: SuiteOptions, finished: TaskCache) -> SuiteResult:
        assert finished.folder.name == "tasks"
        return result(model.name, row_of_items("t", "m", hits(0.5)))

    found = []
    for seed, resamples in ((0, 30), (1, 30), (0, 31)):
        options = SuiteOptions(checkpoint=("a", "b"), seed=seed, num_resamples=resamples)
        run_suite("toy", options, run)
        assert (tmp_path / "evals" / "toy" / "results.html").is_file()
        found.append(json.loads((tmp_path / "evals" / "toy" / "results.json").read_text())["figures"][0]["low"]["a"])
    assert len(set(found)) == 3
    run_suite("toy", SuiteOptions(checkpoint=("a",), out=tmp_path / "other", num_resamples=0), run)
    assert (tmp_path / "other" / "results.md").is_file()


def test_a_negative_number_of_resamples_is_refused(tmp_path: Path) -> None:
    options = SuiteOptions(checkpoint=("a",), out=tmp_path, num_resamples=-5)
    with pytest.raises(UserError, match="num_resamples is -5: it must not be negative"):
        run_suite("toy", options, lambda *_: result("a"))


@pytest.mark.parametrize("option", ["checkpoint", "data"])
def test_a_suite_without_a_model_or_without_data_is_an_error(tmp_path: Path, option: str) -> None:
    given = {"checkpoint": ("a",), "data": (str(tmp_path),), option: ()}
    with pytest.raises(UserError, match=rf"{option} is \(\): name at least one .* with --{option}"):
        run_suite("toy", ZeroShotOptions(**given, out=tmp_path), lambda *_: result("a"))


def test_a_seed_that_no_generator_takes_is_refused(tmp_path: Path) -> None:
    options = SuiteOptions(checkpoint=("a",), out=tmp_path, seed=2**64)
    with pytest.raises(UserError, match=r"seed is 18446744073709551616: it must be from 0 to 2\^64 - 1"):
        run_suite("toy", options, lambda *_: result("a"))


def test_results_that_cannot_be_written_are_an_error_before_any_model_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = SuiteOptions(checkpoint=("no-model",), out=tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        run_suite("toy", options, lambda *_: result("a"))


def test_one_model_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened(SimpleNamespace):
        """A model that a weak reference may name."""

    opened: list[weakref.ref[Opened]] = []

    def load(source: str, **_: Any) -> Opened:
        assert all(before() is None for before in opened)
        model = Opened(name=source)
        opened.append(weakref.ref(model))
        return model

    def run(model: Any, *_: Any) -> SuiteResult:
        return result(model.name, row_of_items("t", "m", hits(0.5)))

    monkeypatch.setattr("prolip.evaluation.run.load", load)
    names = ("open_clip:a/x", "open_clip:b/x", "open_clip:c/x")
    run_suite("toy", SuiteOptions(checkpoint=names, out=tmp_path, num_resamples=0), run)
    assert len(opened) == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "a"), "checkpoint has a more than once: each model can be named once"),
        (
            ("a", "hf-hub:me/b", "open_clip:c/d", "absent"),
            "absent is neither a file nor a folder, nor a released model",
        ),
    ],
)
def test_a_wrong_name_is_refused_before_any_model_runs(
    names: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> SuiteResult:
        raise AssertionError("ran")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    monkeypatch.setattr("prolip.evaluation.run.load", lambda source, **_: SimpleNamespace(name=source))
    with pytest.raises(UserError, match=message):
        run_suite("toy", SuiteOptions(checkpoint=names, out=tmp_path / "out"), run)
