"""Users see an error as one line, whatever characters their data's names hold."""

from __future__ import annotations

import pytest

from prolip.errors import DataError, NoSampleError, UserError


@pytest.mark.parametrize("kind", [DataError, NoSampleError, UserError])
def test_names_from_data_are_escaped_in_messages(kind: type[Exception]) -> None:
    raised = kind("shard bär/猫.tar: sample a\n\x1b[2J\x9b1m\u202eb: damaged")
    assert str(raised) == r"shard bär/猫.tar: sample a\n\x1b[2J\x9b1m\u202eb: damaged"
