"""The checks of the GPU run fail when they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.gpu import batches, gradients
from tests.gpu.batches import bytes_of
from tests.gpu.inputs import write_inputs
from tests.gpu.job import Job
from tests.gpu.report import cells
from tests.gpu.threads import cores

from prolip.models.config import Precision


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def job(tmp_path: Path, rows: list[dict[str, Any]]) -> Job:
    made = Job(device="cpu", small=True, scratch=tmp_path, results=tmp_path / "gpu.json", emit=rows.append)
    write_inputs(made)
    return made


@pytest.mark.parametrize(
    ("precision", "seen"), [("fp32", {"loss", "all gradients", "worst tensor"}), ("bf16", {"worst tensor"})]
)
def test_a_changed_loss_term_fails_the_check(
    precision: Precision, seen: set[str], job: Job, rows: list[dict[str, Any]]
) -> None:
    exact = gradients.double_precision(job)
    errors = gradients.yardstick(job, exact, precision)
    gradients.compare(job, "as it is", exact, errors, precision, [])
    assert all(row["passed"] for row in rows)
    rows.clear()
    gradients.compare(job, "changed", exact, errors, precision, ["--loss.inclusion_weight", "0.2"])
    assert seen <= {row["what"].removeprefix("changed: ") for row in rows if not row["passed"]}


def test_a_changed_pixel_fails_the_check(job: Job, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def one_pixel_darker(images: torch.Tensor) -> torch.Tensor:
        found = bytes_of(images)
        calls.append(found)
        if len(calls) == 7:
            found[1, 2, 3, 0] ^= 1
        return found

    monkeypatch.setattr(batches, "bytes_of", one_pixel_darker)
    batches.under_load(job)
    assert rows[0]["error"] == 1
    assert not rows[0]["passed"]


@pytest.mark.parametrize(
    ("wanted", "found"), [(50, "0.5"), (100, "1.0"), (150, "1.5"), (300, "3.0"), (390, "3.9"), (500, "more than 4")]
)
def test_the_number_of_cores_that_feed_a_device_is_interpolated(wanted: float, found: str) -> None:
    assert cores({4: 400.0, 1: 100.0, 2: 200.0}, wanted) == found


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (
            {"what": "a", "error": 2.5e-7, "limit": 1e-6, "passed": True, "why": "so"},
            ("a", "2.5e-07", "≤ 1e-06", "ok", "so"),
        ),
        (
            {"what": "a", "error": "nan", "limit": 0, "passed": False, "why": ""},
            ("a", "nan", "≤ 0", "**wrong**", ""),
        ),
        (
            {"what": "b", "value": 2345.6, "unit": "", "why": "", "goal": 2000, "more_is_better": True},
            ("b", "2,346", "≥ 2,000", "met", ""),
        ),
        (
            {"what": "c", "value": 0.03, "unit": "", "why": "", "goal": 0.02, "more_is_better": False},
            ("c", "0.03", "≤ 0.02", "missed", ""),
        ),
        ({"what": "d", "value": "a|b", "unit": "s", "why": ""}, ("d", "a\\|b s", "", "", "")),
        ({"what": "e", "not_run": "needs CUDA"}, ("e", "", "", "not run", "needs CUDA")),
    ],
)
def test_rows_are_formatted_as_table_cells(row: dict[str, Any], shown: tuple[str, ...]) -> None:
    assert cells(row) == shown
