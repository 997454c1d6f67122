"""How the processes of a machine share its cores."""

import pytest

from prolip.distributed.ranks import _share_of_cores


@pytest.mark.parametrize(
    ("own", "of_all", "quota", "expected"),
    [
        pytest.param(range(16), [range(16)] * 4, 16, 4, id="shared"),
        pytest.param(range(4, 8), [range(4), range(4, 8)], 4, 4, id="bound to its own"),
        pytest.param(range(8), [range(8), range(8), range(8, 16), range(8, 16)], 8, 4, id="bound to a socket"),
        pytest.param(range(4), [range(1, 4), range(4), range(2, 4)], 4, 2, id="bound to some: 1 + 1/2 + 1/3 + 1/3"),
        pytest.param(range(64), [range(64)] * 2, 6, 3, id="a container's quota"),
        pytest.param(range(2), [range(2)] * 8, 2, 1, id="fewer cores than processes"),
    ],
)
def test_a_process_uses_its_share_of_each_core(own, of_all, quota, expected, monkeypatch):
    monkeypatch.setattr("prolip.distributed.ranks.usable_cores", lambda: quota)
    assert _share_of_cores(set(own), [set(cores) for cores in of_all]) == expected
