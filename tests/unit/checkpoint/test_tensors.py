"""Pickled metadata is read; anything that a pickle could call is refused."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.support.checkpoints import save, tensors
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

from prolip.checkpoint import load_checkpoint
from prolip.checkpoint.tensors import _Unpickler


def test_metadata_of_an_early_python_3_11_is_read(tmp_path, monkeypatch):
    """Python 3.11.2, which Debian 12 has, pickles an enum's member as a call of `getattr`."""

    def by_name(member: Any, _: int) -> tuple[Callable[..., Any], tuple[type, str]]:
        return getattr, (type(member), member.name)

    monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", by_name)
    path = save(tmp_path, 1)
    assert b"getattr" in (path / ".metadata").read_bytes()
    assert torch.equal(load_checkpoint(path).model()["weight"], tensors(1)["model.weight"])


def test_unpickled_getattr_finds_only_enum_members():
    """The manifest's checksums refuse such a file already; this is what stands behind them."""

    class Harm:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[type, str]]:
            return getattr, (Metadata, "__init__")

    with pytest.raises(
        pickle.UnpicklingError, match=r"it reads Metadata\.__init__, and only members of enums may be read"
    ):
        _Unpickler(io.BytesIO(pickle.dumps(Harm()))).load()
