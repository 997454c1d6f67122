"""Recall of approximate indexes over the vectors for databases: the share of the exact results that they find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.vector_rows import some_gaussians

from prolip.gaussian import Gaussian
from prolip.interop.vectors import query_vectors, stored_vectors

DIM, K = 512, 10

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]


def report(name: str, exact: Any, found: Any) -> float:
    """Prints and returns the recall."""
    recall = float(np.mean([len(set(one) & set(other)) / K for one, other in zip(found, exact, strict=True)]))
    print(f"{name}: recall at {K} {recall:.3f}")
    return recall


def test_approximate_indexes_have_high_recall(tmp_path: Path, full: bool) -> None:
    import faiss
    import lancedb  # two seconds, which each of pytest's workers would spend
    import pyarrow as pa
    from lancedb.index import HnswSq

    rows = 20_000 if full else 300
    items, queries = some_gaussians(rows, DIM, seed=0), some_gaussians(200 if full else 5, DIM, seed=1)
    stored, asked = stored_vectors(items), query_vectors(queries)
    flat = faiss.IndexFlatIP(DIM + 1)
    flat.add(stored)
    _, exact = flat.search(asked, K)
    means_alone = asked @ stored_vectors(Gaussian.point(items.mean)).T
    report("exact search by the means alone", exact, np.argsort(-means_alone, axis=1)[:, :K])

    graph = faiss.IndexHNSWFlat(DIM + 1, 32, faiss.METRIC_INNER_PRODUCT)
    graph.add(stored)
    for breadth in (16, 64, 128):
        graph.hnsw.efSearch = breadth
        recall = report(f"FAISS HNSW, efSearch {breadth}", exact, graph.search(asked, K)[1])
    assert recall >= 0.9

    lists = pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel()), DIM + 1)
    table = lancedb.connect(tmp_path).create_table("images", pa.table({"row": pa.array(range(rows)), "vector": lists}))
    table.create_index("vector", config=HnswSq(distance_type="dot", num_partitions=1))

    def lance(query: Any, refined: int | None) -> list[int]:
        search = table.search(query).limit(K)
        return [hit["row"] for hit in (search if refined is None else search.refine_factor(refined)).to_list()]

    for refined in (None, 5):
        found = [lance(query, refined) for query in asked]
        recall = report(f"LanceDB HNSW-SQ, refine factor {refined}", exact, found)
    assert recall >= 0.9
