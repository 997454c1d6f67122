"""`run_units` in threads of this process; slow/test_ray.py has it on Ray."""

from collections import Counter

import pytest
from tests.support.refusals import refusal_of

from prolip.embeddings.config import EngineOptions
from prolip.embeddings.threads_or_ray import run_units
from prolip.errors import DataError


def test_units_run_once_and_one_that_fails_three_times_does_not_stop_the_others(capsys):
    tries = Counter[str]()

    def make(report):
        def work(unit):
            tries[unit] += 1
            report(2)
            if unit == "bad" or (unit == "late" and tries[unit] < 3):
                raise OSError("no such part")
            return {"a": "A", "b": "B", "late": "LATE"}[unit]

        return work

    found = dict[int, str]()
    with pytest.raises(DataError, match=r"(?s)2 of 5 parts .*bad: no such part") as error:
        found.update(run_units(["a", "bad", "late", "bug", "b"], make, EngineOptions(), verb="tried"))
    assert "KeyError: 'bug'" in str(error.value)
    assert found == {0: "A", 2: "LATE", 4: "B"}
    assert tries == {"a": 1, "bad": 3, "late": 3, "bug": 3, "b": 1}
    assert "2 failed" in capsys.readouterr().err


def test_wrong_settings_are_named():
    for field, options in (("workers", EngineOptions(workers=-1)), ("on", EngineOptions(on="mars"))):
        with refusal_of(field):
            list(run_units(["a"], lambda _: str, options, verb="tried"))
