"""A small `prolip embed`: its options, and the rows that it has written."""

import numpy as np

from prolip.embeddings.config import EmbedOptions
from prolip.embeddings.storage import complete_parts
from prolip.store.folder import Folder


def options(lab, out, **changes):
    """Options to embed the shards of the fixture `lab`."""
    given = {
        "checkpoint": str(lab / "run"),
        "out": str(out),
        "log_var": True,
        "shards": (str(lab / "data" / "{a/0,b/1,a/2}.tar"),),
    }
    return EmbedOptions(**(given | {"batch_size": 2, "device": "cpu", "dtype": "float32"} | changes))


def read(out, kind):
    """Keys, sources, means, log variances and total variances of all parts."""
    parts = complete_parts(Folder(str(out)), kind)[1]
    blocks = [block for part in parts for block in part.blocks(2, log_var=True)]
    mean, log_var, total = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("mean", "log_var", "total_var")
    )
    keys, sources = ([name for part in parts for name in part.names()[place]] for place in (0, 1))
    return keys, sources, mean, log_var, total


def assert_equal(found, expected):
    """The rows that `read` returned are these Gaussians, in single precision."""
    np.testing.assert_allclose(found[2], expected.mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[3], expected.log_var.numpy(), atol=1e-4)
