"""Errors by the field that they name."""

from contextlib import contextmanager

import pytest

from prolip.errors import UserError


@contextmanager
def refusal_of(field, kind=UserError):
    """Checks that the block raises an error of a kind that names the field."""
    with pytest.raises(kind) as error:
        yield
    assert error.value.field == field, f"{error.value} does not name {field}"
