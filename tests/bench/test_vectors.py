"""Recall of approximate indexes over the vectors for databases: the share of the exact results that they find."""

import os
import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.support.vector_rows import some_gaussians, write_parts

from prolip.embeddings.search import nearest
from prolip.embeddings.storage import complete_parts
from prolip.gaussian import Gaussian
from prolip.interop.vector_databases import query_vectors, read_vectors, stored_vectors
from prolip.store.folder import Folder

DIM, K = 512, 10

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]


def report(name: str, exact: Any, found: Any) -> float:
    """Prints and returns the recall."""
    recall = float(np.mean([len(set(one) & set(other)) / K for one, other in zip(found, exact, strict=True)]))
    print(f"{name}: recall at {K} {recall:.3f}")
    return recall


def test_approximate_indexes_have_high_recall(tmp_path, full):
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


def test_an_index_of_many_rows_finds_what_exact_search_does(tmp_path, full):
    """The table of docs/how-to/vector-databases.md, with PROLIP_ROWS=10000000."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfPq

    rows, size, dim = (int(os.environ.get("PROLIP_ROWS", "1000000")), 100_000, 128) if full else (1000, 500, 16)
    centres = np.random.default_rng(0).normal(size=(rows // 500, dim)).astype(np.float32)

    def some(seed: int, count: int) -> Gaussian:
        draw = np.random.default_rng(seed)
        mean = centres[draw.integers(0, len(centres), count)] + 0.6 * draw.normal(size=(count, dim))
        log_var = np.log(0.1 / dim) + 0.5 * draw.normal(size=(count, 1)) + np.zeros((1, dim))
        return Gaussian(F.normalize(torch.from_numpy(mean), dim=-1), torch.from_numpy(log_var))

    sizes = [size] * (rows // size)
    write_parts(tmp_path, {"image": lambda number: some(number + 2, size)}, sizes, dtype="float16")
    queries = some(1, 100 if full else 5)
    _, parts = complete_parts(Folder(str(tmp_path)), "image")
    begun = time.process_time()
    hits = nearest(parts, queries.mean.float().numpy(), K)
    print(f"{rows:,} rows, exact: {(time.process_time() - begun) / len(hits):.2f} CPU s a query, together")
    exact = [[f"k{hit.part * size + hit.row}" for hit in found] for found in hits]
    width = dim + 4

    def padded(vectors: Any) -> Any:
        return np.pad(vectors, ((0, 0), (0, width - vectors.shape[1])))

    schema = pa.schema({"key": pa.string(), "vector": pa.list_(pa.float32(), width)})
    batches = (
        pa.record_batch([block.keys, pa.FixedSizeListArray.from_arrays(padded(block.vectors).ravel(), width)], schema)
        for block in read_vectors(tmp_path)
    )
    table = lancedb.connect(tmp_path / "lance").create_table("images", batches, schema=schema)
    begun = time.process_time()
    pieces = {"num_partitions": max(1, rows // 10_000), "num_sub_vectors": width // 4, "sample_rate": 64}
    table.create_index("vector", config=IvfPq(distance_type="dot", **pieces))
    print(f"built in {time.process_time() - begun:.0f} CPU s")
    for probes, refined in ((50, 10), (100, 50), (200, 50)):
        begun, found = time.perf_counter(), []
        for query in padded(query_vectors(queries)):
            search = table.search(query).distance_type("dot").limit(K).nprobes(probes).refine_factor(refined)
            found.append([hit["key"] for hit in search.to_list()])
        print(f"{(time.perf_counter() - begun) / len(found) * 1000:.0f} ms a query")
        recall = report(f"LanceDB IVF-PQ, {probes} of {pieces['num_partitions']} partitions", exact, found)
    assert recall >= 0.9
