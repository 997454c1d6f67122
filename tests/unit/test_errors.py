"""Users see an error as one line, whatever characters their data's names hold."""

from __future__ import annotations

import pytest

from prolip.errors import DataError, NoSampleError, UserError


@pytest.mark.parametrize("kind", [DataError, NoSampleError, UserError])
def test_names_in_data_add_no_line_and_control_no_terminal(kind: type[Exception]) -> None:
    raised = kind("shard bär/猫.tar: sample a\n\x1b[2J\x9b1m\u202eb: damaged")
    assert str(raised) == r"shard bär/猫.tar: sample a\n\x1b[2J\x9b1m\u202eb: damaged"
