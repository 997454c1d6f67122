"""Vectors for databases. tests/slow/test_ecosystems.py compares the databases with `prolip search`."""

import numpy as np
import pytest
import torch
from tests.support.vector_rows import some_gaussians, write_parts

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.interop.vector_databases import query_vectors, read_vectors, stored_vectors


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_vectors_read_from_part_files_equal_those_of_the_gaussians(tmp_path, stored):
    items = some_gaussians(50, 16, seed=0)
    write_parts(tmp_path, {"image": items}, [20, 20, 10], dtype=stored)
    blocks = list(read_vectors(tmp_path, "image", rows=8))
    assert [len(block.keys) for block in blocks] == [8, 8, 4, 8, 8, 4, 8, 2]
    assert [key for block in blocks for key in block.keys] == [f"k{row}" for row in range(50)]
    assert {source for block in blocks for source in block.sources} == {"0.tar", "1.tar", "2.tar"}
    mean = items.mean.to(getattr(torch, stored))
    # Variances are summed before they are rounded to half precision.
    expected = stored_vectors(items)
    expected[:, :-1] = mean.float().numpy()
    found = np.concatenate([block.vectors for block in blocks])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    asked = np.concatenate([block.vectors for block in read_vectors(tmp_path, "image", "query")])
    assert (asked == query_vectors(Gaussian(mean, items.log_var))).all()


def test_means_that_are_not_unit_vectors_are_refused(tmp_path):
    items = some_gaussians(3, 8, seed=0)
    raw = Gaussian(items.mean * torch.tensor([[1.0], [2.5], [1.0]]), items.log_var)
    for build in (stored_vectors, query_vectors):
        for wrong in (raw, Gaussian(items.mean * torch.nan, items.log_var), items._replace(mean=items.mean[None])):
            with pytest.raises(ValueError, match="mean"):
                build(wrong)
    with pytest.raises(ValueError, match="row 2"):
        stored_vectors(Gaussian(items.mean, items.log_var + torch.tensor([[0.0], [0.0], [900.0]])))
    write_parts(tmp_path, {"image": raw}, [2, 1])
    with pytest.raises(UserError, match="image-000000"):
        list(read_vectors(tmp_path))
