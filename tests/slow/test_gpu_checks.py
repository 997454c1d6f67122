"""The checks of the GPU run fail when they should."""

import pytest
from tests.gpu import gradients
from tests.gpu.inputs import write_inputs
from tests.gpu.job import Job


@pytest.fixture
def rows():
    return []


@pytest.fixture
def job(tmp_path, rows):
    made = Job(device="cpu", small=True, scratch=tmp_path, emit=rows.append)
    write_inputs(made)
    return made


@pytest.mark.parametrize(
    ("precision", "seen"), [("fp32", {"loss", "all gradients", "worst tensor"}), ("bf16", {"worst tensor"})]
)
def test_a_changed_loss_term_fails_the_check(precision, seen, job, rows):
    exact = gradients.double_precision(job)
    errors = gradients.yardstick(job, exact, precision)
    gradients.compare(job, "as it is", exact, errors, precision, [])
    assert all(row["passed"] for row in rows)
    rows.clear()
    gradients.compare(job, "changed", exact, errors, precision, ["--loss.inclusion_weight", "0.2"])
    assert seen <= {row["what"].removeprefix("changed: ") for row in rows if not row["passed"]}
