"""Import pyarrow, an optional dependency, when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from prolip.errors import UserError

_MISSING = (
    "Parquet files need pyarrow: pip install 'prolip[eval]'. Embeddings as safetensors (prolip embed --format "
    "safetensors) and rankings as .csv work without it"
)


def pyarrow() -> Any:
    """Return the module pyarrow.

    Raises:
        UserError: pyarrow is not installed.
    """
    return _module("pyarrow")


def parquet() -> Any:
    """Return the module pyarrow.parquet.

    Raises:
        UserError: pyarrow is not installed.
    """
    return _module("pyarrow.parquet")


def has_parquet() -> bool:
    """Whether Parquet files can be read and written here."""
    try:
        parquet()
    except UserError:
        return False
    return True


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(_MISSING) from error
