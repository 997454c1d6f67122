"""Databases of the vectors in part files find what `prolip search` finds."""

import numpy as np
import pytest
from tests.support.vector_rows import some_gaussians, write_parts

from prolip.embeddings.search import nearest
from prolip.embeddings.storage import complete_parts
from prolip.interop.vector_databases import query_vectors, read_vectors
from prolip.store.folder import Folder

K = 10
PRODUCT = 1e-6
"""Of an inner product in single precision; items that are nearer to each other may change places."""


class Index:
    """Gaussians in part files, queries, and what `prolip search` finds."""

    def __init__(self, folder):
        queries = some_gaussians(12, 32, seed=1)
        write_parts(folder, {"image": some_gaussians(300, 32, seed=0)}, [70, 130, 100])
        self.vectors = np.concatenate([block.vectors for block in read_vectors(folder)])
        self.queries = query_vectors(queries)
        self.exact = self.queries.astype(np.float64) @ self.vectors.astype(np.float64).T
        _, parts = complete_parts(Folder(str(folder)), "image")
        self.scores = [[hit.score for hit in hits] for hits in nearest(parts, queries.mean.numpy(), K)]

    def check(self, rows, scores):
        """Checks that each row is the one that search finds, or no farther from the query."""
        found = np.take_along_axis(self.exact, np.asarray(rows), axis=1)
        np.testing.assert_allclose(found, self.scores, rtol=0, atol=PRODUCT)
        np.testing.assert_allclose(scores, self.scores, rtol=0, atol=PRODUCT)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return Index(tmp_path_factory.mktemp("embeddings"))


def test_scores_of_the_best_items_differ_and_depend_on_variances(index):
    """Otherwise the other tests would show nothing."""
    assert (np.ptp(index.scores, axis=1) > 100 * PRODUCT).all()
    means = index.vectors[:, :-1] @ index.queries[:, :-1].T
    assert ((-index.exact).argsort(1)[:, :K] != means.argsort(0)[::-1][:K].T).any()


def test_faiss_returns_the_results_of_search(index):
    import faiss

    flat = faiss.IndexFlatIP(index.vectors.shape[1])
    flat.add(index.vectors)
    scores, rows = flat.search(index.queries, K)
    index.check(rows, scores)


def test_lancedb_returns_the_results_of_search(index, tmp_path):
    import lancedb
    import pyarrow as pa

    lists = pa.FixedSizeListArray.from_arrays(pa.array(index.vectors.ravel()), index.vectors.shape[1])
    rows = pa.table({"row": pa.array(range(len(index.vectors))), "vector": lists})
    table = lancedb.connect(tmp_path).create_table("images", rows)
    found = [table.search(query).distance_type("dot").limit(K).to_list() for query in index.queries]
    scores = [[1 - hit["_distance"] for hit in hits] for hits in found]
    index.check([[hit["row"] for hit in hits] for hits in found], scores)


def test_qdrant_returns_the_results_of_search(index):
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    vectors = models.VectorParams(size=index.vectors.shape[1], distance=models.Distance.DOT)
    client.create_collection("images", vectors_config=vectors)
    client.upload_collection("images", vectors=index.vectors, ids=range(len(index.vectors)))
    found = [client.query_points("images", query=query, limit=K).points for query in index.queries]
    client.close()
    index.check([[hit.id for hit in hits] for hits in found], [[hit.score for hit in hits] for hits in found])
