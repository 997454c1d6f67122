"""Import pyarrow, an optional dependency, when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from prolip.errors import UserError

_MISSING = "pyarrow is not installed: pip install 'prolip[eval]'; safetensors and CSV files need nothing more"


def pyarrow() -> Any:
    """The module pyarrow.

    Raises:
        UserError: pyarrow is not installed.
    """
    return _module("pyarrow")


def parquet() -> Any:
    """The module pyarrow.parquet.

    Raises:
        UserError: pyarrow is not installed.
    """
    return _module("pyarrow.parquet")


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(_MISSING) from error
