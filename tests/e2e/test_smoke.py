"""The smoke test of the release workflow passes here."""

import pytest
from tests.support import smoke


def test_the_smoke_test_passes(capsys: pytest.CaptureFixture[str]) -> None:
    smoke.main()
    assert " works with Python 3." in capsys.readouterr().out
