"""Import pyarrow, an optional dependency, when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from prolip.errors import UserError

_MISSING = (
    "Parquet files need pyarrow: pip install 'prolip[eval]'. Embeddings as safetensors (prolip embed --format "
    "safetensors) and rankings as .csv work without it"
)


def pyarrow(module: str = "pyarrow") -> Any:
    """Return the module pyarrow, or one of its modules.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(_MISSING) from error


def parquet() -> Any:
    """Return the module pyarrow.parquet; see `pyarrow`."""
    return pyarrow("pyarrow.parquet")


def has_parquet() -> bool:
    """Whether Parquet files can be read and written here."""
    try:
        parquet()
    except UserError:
        return False
    return True
