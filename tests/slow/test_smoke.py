"""The smoke test of the release workflow passes here."""

from tests.support import smoke


def test_the_smoke_test_passes(capsys):
    smoke.main()
    assert " works with Python 3." in capsys.readouterr().out
