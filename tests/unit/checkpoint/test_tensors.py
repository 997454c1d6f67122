"""Metadata that an early Python 3.11 pickled is read."""

import torch
from tests.support.checkpoints import save, tensors
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from prolip.checkpoint import load_checkpoint


def test_metadata_of_an_early_python_3_11_is_read(tmp_path, monkeypatch):
    """Python 3.11.2, which Debian 12 has, pickles an enum's member as a call of `getattr`."""

    def by_name(member, _):
        return getattr, (type(member), member.name)

    monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", by_name)
    path = save(tmp_path, 1)
    assert b"getattr" in (path / ".metadata").read_bytes()
    assert torch.equal(load_checkpoint(path).model()["weight"], tensors(1)["model.weight"])
