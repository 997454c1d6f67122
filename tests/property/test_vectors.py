"""Inner products of the vectors for databases rank by CSD, within the documented bound."""

import numpy as np
import torch
from hypothesis import given, settings, strategies as st

from prolip.gaussian import Gaussian, csd
from prolip.interop.vector_databases import query_vectors, stored_vectors


def gaussians(rng, rows, dim, log_var, off):
    """Random Gaussians whose means are up to `off` from unit length, some of them nearly equal."""
    centre = rng.normal(size=dim)
    mean = centre + rng.choice([1.0, 1e-3, 1e-6], size=(rows, 1)) * rng.normal(size=(rows, dim))
    mean *= (1.0 + off * rng.uniform(-1, 1, (rows, 1))) / np.linalg.norm(mean, axis=1, keepdims=True)
    spread = log_var + rng.normal(size=(rows, dim))
    return Gaussian(torch.from_numpy(mean).float(), torch.from_numpy(spread).float())


@given(
    seed=st.integers(0, 2**20),
    dim=st.integers(2, 200),
    rows=st.integers(1, 40),
    log_var=st.floats(-14.0, 0.0),
    off=st.sampled_from([0.0, 1e-6, 4.9e-4]),
)
@settings(max_examples=100)
def test_vector_products_give_the_csd_within_the_error_bound(seed, dim, rows, log_var, off):
    rng = np.random.default_rng(seed)
    items, queries = (gaussians(rng, count, dim, log_var, off) for count in (rows, 3))
    exact_items, exact_queries = items.to(torch.float64), queries.to(torch.float64)
    distances = csd(exact_queries, exact_items).numpy()
    squares = [each.mean.square().sum(-1).numpy() for each in (exact_queries, exact_items)]
    half_vars = exact_items.total_var.numpy() / 2

    products = query_vectors(queries) @ stored_vectors(items).T
    # Half of the query's squared length and variance is the same for all items.
    constants = (1.0 + squares[0] + exact_queries.total_var.numpy()) / 2
    errors = np.abs(products - (constants[:, None] - distances / 2))
    of_length = np.abs(squares[1] - 1.0) / 2
    of_rounding = (dim + 8) * 2.0**-24 * (np.sqrt(np.multiply.outer(*squares)) + half_vars)
    assert (errors <= of_length + of_rounding).all()

    # So items are in the order of their CSD unless the bounds of two of them overlap.
    bound = (of_length + of_rounding).max(1)
    for query, order in enumerate(np.argsort(-products, axis=1)):
        ranked = distances[query][order] / 2
        assert (np.maximum.accumulate(ranked) - ranked <= 2 * bound[query]).all()
