"""The library against recorded numbers of the released code, through the checker and its adapter."""

import sys
from pathlib import Path

import pytest
from tests.parity.adapter import Adapter
from tests.parity.check_reference import cases, check
from tests.support import forked

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def ours():
    return Adapter()


@pytest.mark.parametrize("case", cases(HERE / "vectors"), ids=str)
def test_our_functions_reproduce_the_recorded_reference_numbers(case, ours):
    result = check(case, ours)
    assert result.raised is None
    assert result.skipped is None
    assert [one for one in result.comparisons if not one.passed] == []


def test_the_checker_reports_wrong_numbers_and_skips_missing_functions():
    class Wrong(Adapter):
        def kept_patches(self, n_patches, ratio):
            return round(n_patches * ratio)

        def masked_count(self, batch, drop_ratio):
            raise NotImplementedError

    results = {case.name: check(case, Wrong()) for case in cases(HERE / "vectors") if case.name.startswith("masking.")}
    wrong = [one.name for one in results.pop("masking.patches").comparisons if not one.passed]
    assert "7_0.5" in wrong
    assert "196_0.75" not in wrong
    assert results
    assert all(result.skipped for result in results.values())


def run(checker):
    found = forked.run([sys.executable, *checker], cwd=ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_the_checker_command_prints_how_many_checks_passed():
    folder = HERE / "vectors"
    told = run(f"-m tests.parity.check_reference {folder} --adapter tests.parity.adapter:Adapter".split())
    assert told.endswith(" passed, 0 failed, 0 skipped\n")


def test_the_checker_of_the_full_reference_set_passes(shared):
    """The checker that comes with the set runs our adapter. The released loss on two ranks is skipped: it raises."""
    golden = shared / "golden"
    told = run(f"{golden}/check_reference.py {golden} --quiet --adapter tests.parity.adapter:Adapter".split())
    assert " 0 failed, 1 skipped" in told
