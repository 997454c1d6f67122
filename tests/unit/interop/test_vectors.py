"""Vectors for databases: their contents, and that FAISS, LanceDB and Qdrant agree with `prolip search`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.vector_rows import embedded, some_gaussians

from prolip.embeddings.config import Stored
from prolip.embeddings.search import nearest
from prolip.embeddings.storage import Floats, complete_parts
from prolip.errors import UserError
from prolip.gaussian import Gaussian, csd
from prolip.interop.vectors import query_vectors, read_vectors, stored_vectors

DIM, ROWS, K = 64, 2000, 10


def test_a_vector_is_the_mean_and_one_extra_number() -> None:
    items = some_gaussians(5, 8, seed=0)
    stored, queries = stored_vectors(items), query_vectors(items)
    assert stored.dtype == queries.dtype == np.float32
    assert (stored[:, :8] == items.mean.float().numpy()).all()
    assert (queries[:, :8] == stored[:, :8]).all()
    np.testing.assert_allclose(stored[:, 8], items.total_var.numpy(), rtol=1e-6)
    assert (queries[:, 8] == -0.5).all()
    points = Gaussian.point(items.mean)
    assert (stored_vectors(points)[:, 8] == 0).all()


def test_vector_products_give_the_csd() -> None:
    items, queries = some_gaussians(50, 16, seed=0), some_gaussians(4, 16, seed=1)
    products = query_vectors(queries) @ stored_vectors(items).T
    distances = 2 + queries.total_var.numpy()[:, None] - 2 * products
    np.testing.assert_allclose(distances, csd(queries, items).numpy(), atol=2e-6)


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_vectors_read_from_part_files_equal_those_of_the_gaussians(tmp_path: Path, stored: Stored) -> None:
    items = some_gaussians(50, 16, seed=0)
    embedded(tmp_path, items, dtype=stored, rows_per_part=20)
    blocks = list(read_vectors(tmp_path, "image", rows=8))
    assert [len(block.keys) for block in blocks] == [8, 8, 4, 8, 8, 4, 8, 2]
    assert [key for block in blocks for key in block.keys] == [f"{row}.jpg" for row in range(50)]
    assert {source for block in blocks for source in block.sources} == {"shard-0.tar", "shard-1.tar", "shard-2.tar"}
    mean = items.mean.to(getattr(torch, stored))
    # Variances are summed before they are rounded to half precision.
    expected = stored_vectors(items)
    expected[:, :-1] = mean.float().numpy()
    found = np.concatenate([block.vectors for block in blocks])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    asked = np.concatenate([block.vectors for block in read_vectors(tmp_path, "image", "query")])
    assert (asked == query_vectors(Gaussian(mean, items.log_var))).all()


def test_means_that_are_not_unit_vectors_are_refused(tmp_path: Path) -> None:
    items = some_gaussians(3, 8, seed=0)
    raw = Gaussian(items.mean * torch.tensor([[1.0], [2.5], [1.0]]), items.log_var)
    for build in (stored_vectors, query_vectors):
        with pytest.raises(ValueError, match=r"row 1: the mean has length 2\.5: it must be 1 within 0\.001"):
            build(raw)
        with pytest.raises(ValueError, match="row 0: the mean has length nan"):
            build(Gaussian(items.mean * torch.nan, items.log_var))
        with pytest.raises(ValueError, match=r"\(2, 3, 8\): it must be \[N, D\]"):
            build(Gaussian(items.mean.expand(2, 3, 8), items.log_var))
    wide = Gaussian(items.mean, items.log_var + torch.tensor([[0.0], [0.0], [900.0]]))
    with pytest.raises(ValueError, match="row 2: the total variance is inf"):
        stored_vectors(wide)
    embedded(tmp_path, raw, rows_per_part=2)
    with pytest.raises(UserError, match=r"image-000000.* rows from 0: row 1: the mean has length 2\.5"):
        list(read_vectors(tmp_path))


# ---- databases ------------------------------------------------------------------------------------------------------


class World:
    """Embeddings in part files, queries, and what `prolip search` finds."""

    def __init__(self, folder: Path) -> None:
        embedded(folder, some_gaussians(ROWS, DIM, seed=0), rows_per_part=700)
        queries = some_gaussians(20, DIM, seed=1).to(torch.float32)
        self.folder = folder
        self.queries = query_vectors(queries)
        _, parts = complete_parts(folder, "image")
        hits = nearest(parts, queries.mean.numpy(), K)
        self.rows = [[700 * hit.part + hit.row for hit in found] for found in hits]
        self.scores = np.array([[hit.score for hit in found] for found in hits])

    def stored(self) -> Floats:
        return np.concatenate([block.vectors for block in read_vectors(self.folder)])

    def recall(self, found: Any) -> float:
        shared = [len(set(one) & set(other)) for one, other in zip(self.rows, np.asarray(found).tolist(), strict=True)]
        return sum(shared) / (K * len(shared))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("embeddings"))


def test_ranking_by_csd_differs_from_ranking_by_means(world: World) -> None:
    """Otherwise the tests of the databases would pass without variances."""
    means = np.argsort(-(world.queries[:, :-1] @ world.stored()[:, :-1].T), axis=1)[:, :K]
    assert world.recall(means) < 0.9


def test_faiss_returns_the_results_of_exact_search(world: World) -> None:
    import faiss

    index = faiss.IndexFlatIP(DIM + 1)
    index.add(world.stored())
    scores, rows = index.search(world.queries, K)
    assert rows.tolist() == world.rows
    np.testing.assert_allclose(scores, world.scores, atol=1e-6)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_faiss_indexes_have_high_recall(world: World, kind: str) -> None:
    import faiss

    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(DIM + 1, 32, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM + 1), DIM + 1, 16, faiss.METRIC_INNER_PRODUCT)
        index.train(world.stored())
        index.nprobe = 8
    index.add(world.stored())
    assert world.recall(index.search(world.queries, K)[1]) >= 0.9


@pytest.fixture(scope="module")
def lance_table(world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import lancedb
    import pyarrow as pa

    vectors = world.stored()
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM + 1)
    table = pa.table({"row": pa.array(range(ROWS)), "vector": lists})
    return lancedb.connect(tmp_path_factory.mktemp("lance")).create_table("images", table)


def lance_rows(world: World, search: Callable[[Any], Any]) -> list[list[int]]:
    return [[hit["row"] for hit in search(query).to_list()] for query in world.queries]


def test_lancedb_returns_the_results_of_exact_search(world: World, lance_table: Any) -> None:
    def exact(query: Floats) -> Any:
        return lance_table.search(query).distance_type("dot").bypass_vector_index().limit(K)

    assert lance_rows(world, exact) == world.rows
    scores = [[1 - hit["_distance"] for hit in exact(query).to_list()] for query in world.queries]
    np.testing.assert_allclose(scores, world.scores, atol=1e-6)


def test_an_approximate_lancedb_index_has_high_recall(world: World, lance_table: Any) -> None:
    from lancedb.index import HnswSq

    lance_table.create_index("vector", config=HnswSq(distance_type="dot", num_partitions=1))
    found = lance_rows(world, lambda query: lance_table.search(query).limit(K).refine_factor(5))
    assert world.recall(found) >= 0.9


def test_qdrant_returns_the_results_of_exact_search(world: World) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    config = models.VectorParams(size=DIM + 1, distance=models.Distance.DOT)
    client.create_collection("images", vectors_config=config)
    client.upload_collection("images", vectors=world.stored(), ids=range(ROWS))
    found = [client.query_points("images", query=query, limit=K).points for query in world.queries]
    client.close()
    assert [[hit.id for hit in hits] for hits in found] == world.rows
    np.testing.assert_allclose([[hit.score for hit in hits] for hits in found], world.scores, atol=1e-6)
