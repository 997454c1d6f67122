"""A run of the demo's recipe, exported to each library: there it gives our own embeddings, probabilities or order.

The tests train the recipe for a few steps. `PROLIP_DEMO=.` takes a finished demo instead, the folder with its runs/demo
and data/emoji, and `-s` shows the differences that were found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.emoji_build import build_made_up
from tests.support.shards import read_samples

import prolip
from prolip import cli
from prolip.data import preprocess_image
from prolip.embeddings.search import nearest
from prolip.embeddings.storage import complete_parts
from prolip.interop.vectors import query_vectors, read_vectors

Found = np.ndarray | torch.Tensor

STEPS = 8
NUM_IMAGES, K = 12, 10
CLOSE = 1e-6
"""The same arithmetic in another program, where a kernel may add in another order."""
LOG_VAR = 3e-6
"""Log variances are six times as large as means."""
ONNX = {"fp32": {"mean": 1e-4, "log_var": 1e-4}, "fp16": {"mean": 2e-3, "log_var": 2e-2}}
"""What the export promises."""
PRODUCT = 1e-6
"""Of an inner product in single precision; items that are nearer to each other may change places."""


class Demo:
    """A run, some of its test images and captions, and our embeddings of them."""

    def __init__(self, folder: Path, images: Path) -> None:
        self.run, self.shards = folder / "runs" / "demo", folder / "data" / "emoji" / "test-openmoji-*.tar"
        self.images: list[Path] = []
        captions: list[str] = []
        for key, members in _samples(self.shards):
            if len(self.images) < NUM_IMAGES:
                self.images.append(images / f"{key}.png")
                self.images[-1].write_bytes(members["png"])
            captions += [json.loads(members["json"])["captions"][level][0] for level in ("name", "subgroup", "group")]
        self.captions = sorted(set(captions))[:NUM_IMAGES]
        self.model = prolip.load(self.run, device="cpu")
        self.image, self.text = self.model.encode_images(self.images), self.model.encode_texts(self.captions)


def _samples(shards: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The key and the members of each sample."""
    for shard in sorted(shards.parent.glob(shards.name)):
        yield from read_samples(shard).items()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "images").mkdir()
    if "PROLIP_DEMO" in os.environ:
        return Demo(Path(os.environ["PROLIP_DEMO"]).absolute(), folder / "images")
    build_made_up(folder / "data" / "emoji")
    words = ["--out", f"{folder}/runs/demo", "--data.shards", f"{folder}/data/emoji/train-*.tar", "--batch_size", "16"]
    words += ["--data.tokenizer.path", f"{folder}/data/emoji/tokenizer.json", "--samples_seen", str(16 * STEPS)]
    words += ["--precision", "fp32", "--device", "cpu", "--cpu_threads", "1", "--optim.warmup_steps", "2"]
    words += ["--model.vision.layers", "1", "--model.text.layers", "1"]  # to be quick
    assert cli.main(["train", "demo", *words]) == 0
    return Demo(folder, folder / "images")


@pytest.fixture(scope="module")
def exported(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Exports the run, once per format; returns the folder."""
    folder = tmp_path_factory.mktemp("exported")

    def export(form: str, *flags: str) -> Path:
        out = folder / "-".join([form, *flags])
        if not out.exists():
            assert cli.main(["export", str(demo.run), "--format", form, *flags, "--out", str(out)]) == 0
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules"))
        yield export


def close(what: str, found: Found, expected: Found, atol: float) -> None:
    """Checks that values differ by no more than `atol`, and prints by how much they do."""
    difference = np.abs(np.asarray(found, dtype=np.float64) - np.asarray(expected, dtype=np.float64))
    print(f"{what}: {difference.max():.1e} at most, of {atol:.0e} allowed")
    assert difference.shape == np.shape(expected)
    assert difference.max() <= atol


def test_embeddings_of_images_and_captions_vary(demo: Demo) -> None:
    """Otherwise the other tests would show nothing."""
    for gaussian in (demo.image, demo.text):
        assert len(gaussian.mean) == NUM_IMAGES
        assert (gaussian.mean.std(0).norm() > 100 * CLOSE) & (gaussian.log_var.std(0).norm() > 100 * CLOSE)


def test_automodel_returns_our_gaussians_and_logits(demo: Demo, exported: Callable[..., Path]) -> None:
    from transformers import AutoModel, AutoProcessor

    folder = exported("transformers")
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    inputs = processor(images=[Image.open(path) for path in demo.images], text=demo.captions, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    for kind, ours in (("image", demo.image), ("text", demo.text)):
        close(f"AutoModel, {kind} means", output[f"{kind}_mean"], ours.mean, CLOSE)
        close(f"AutoModel, {kind} log variances", output[f"{kind}_log_var"], ours.log_var, LOG_VAR)
    logits = demo.model.logit_scale * (1 - prolip.csd(demo.image, demo.text) / 2) + demo.model.logit_bias
    close("AutoModel, logits", output.logits_per_image, logits, 1e-4)


def test_both_pipelines_return_our_probabilities_and_gaussians(demo: Demo, exported: Callable[..., Path]) -> None:
    from transformers import pipeline

    folder = str(exported("transformers"))
    classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True, device="cpu")
    found = classify([str(path) for path in demo.images], candidate_labels=demo.captions, hypothesis_template="{}")
    scores = [[{hit["label"]: hit["score"] for hit in hits}[caption] for caption in demo.captions] for hits in found]
    ours = demo.model.classify(demo.images, demo.captions)
    close("zero-shot pipeline, probabilities", np.array(scores), ours.probabilities, 1e-5)
    extract = pipeline("image-feature-extraction", model=folder, trust_remote_code=True, device="cpu")
    features = torch.cat([extract(str(path), return_tensors=True) for path in demo.images])
    close("feature pipeline, means", features[:, 0], demo.image.mean, CLOSE)
    close("feature pipeline, log variances", features[:, 1], demo.image.log_var, LOG_VAR)


def test_sentence_transformers_returns_our_vectors_and_order(demo: Demo, exported: Callable[..., Path]) -> None:
    from sentence_transformers import SentenceTransformer

    folder = str(exported("sentence-transformers"))
    model = SentenceTransformer(folder, trust_remote_code=True, device="cpu", local_files_only=True)
    images = model.encode([str(path) for path in demo.images])
    texts = model.encode(demo.captions)
    for kind, found, ours in (("image", images, demo.image), ("text", texts, demo.text)):
        close(f"SentenceTransformer, {kind} means", found[:, :-1], ours.mean, CLOSE)
        close(f"SentenceTransformer, {kind} uncertainty", found[:, -1], ours.total_var, CLOSE)
    distance = prolip.csd(demo.text, demo.image)
    close("SentenceTransformer, similarity", model.similarity(texts, images), 1 - distance / 2, PRODUCT)
    stored, queries = model.encode_document([str(path) for path in demo.images]), model.encode_query(demo.captions)
    products = (2 + demo.text.total_var.numpy()[:, None] - distance.numpy()) / 2
    close("SentenceTransformer, products of queries", queries @ stored.T, products, PRODUCT)


@pytest.mark.usefixtures("one_table")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnxruntime_returns_our_gaussians(demo: Demo, exported: Callable[..., Path], precision: str) -> None:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    folder = exported("onnx", "--onnx.uint8_images", "--onnx.precision", precision)
    side, _ = demo.model.preprocess.size
    pixels = np.stack([preprocess_image(path.read_bytes(), side) for path in demo.images])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = np.array([encoding.ids for encoding in tokenizer.encode_batch(demo.captions)])
    for kind, ours, inputs in (("image", demo.image, {"images": pixels}), ("text", demo.text, {"token_ids": ids})):
        session = InferenceSession(folder / f"{kind}.onnx", providers=["CPUExecutionProvider"])
        mean, log_var = session.run(["mean", "log_var"], inputs)
        close(f"onnxruntime {precision}, {kind} means", mean, ours.mean, ONNX[precision]["mean"])
        close(f"onnxruntime {precision}, {kind} log variances", log_var, ours.log_var, ONNX[precision]["log_var"])


# ---- databases ------------------------------------------------------------------------------------------------------


class Index:
    """Embeddings of all test images in part files, queries, and what `prolip search` finds."""

    def __init__(self, demo: Demo, folder: Path) -> None:
        words = ["embed", "--checkpoint", str(demo.run), "--shards", str(demo.shards), "--out", str(folder)]
        assert cli.main([*words, "--device", "cpu"]) == 0
        self.vectors = np.concatenate([block.vectors for block in read_vectors(folder)])
        self.queries = query_vectors(demo.text)
        self.exact = self.queries.astype(np.float64) @ self.vectors.astype(np.float64).T
        _, parts = complete_parts(folder, "image")
        self.scores = [[hit.score for hit in hits] for hits in nearest(parts, demo.text.mean.numpy(), K)]

    def check(self, name: str, rows: Any, scores: Any) -> None:
        """Checks that each row is the one that search finds, or no farther from the query."""
        found = np.take_along_axis(self.exact, np.asarray(rows), axis=1)
        close(f"{name}, products in the order of search", found, self.scores, PRODUCT)
        close(f"{name}, its own products", scores, self.scores, PRODUCT)


@pytest.fixture(scope="module")
def index(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return Index(demo, tmp_path_factory.mktemp("embeddings"))


def test_scores_of_the_best_images_differ_by_more_than_the_tolerance(index: Index, demo: Demo) -> None:
    assert (np.ptp(index.scores, axis=1) > 100 * PRODUCT).all()
    means = index.vectors[:, :-1] @ index.queries[:, :-1].T
    assert ((-index.exact).argsort(1)[:, :K] != means.argsort(0)[::-1][:K].T).any(), "variances do not matter"
    products = 1 + (demo.text.total_var.numpy()[:1] - prolip.csd(demo.text[:1], demo.image).numpy()) / 2
    assert np.abs(np.sort(products) - np.sort(index.exact[0, :NUM_IMAGES])).max() < PRODUCT


def test_faiss_returns_the_results_of_search(index: Index) -> None:
    import faiss

    flat = faiss.IndexFlatIP(index.vectors.shape[1])
    flat.add(index.vectors)
    scores, rows = flat.search(index.queries, K)
    index.check("FAISS", rows, scores)


def test_lancedb_returns_the_results_of_search(index: Index, tmp_path: Path) -> None:
    import lancedb
    import pyarrow as pa

    lists = pa.FixedSizeListArray.from_arrays(pa.array(index.vectors.ravel()), index.vectors.shape[1])
    rows = pa.table({"row": pa.array(range(len(index.vectors))), "vector": lists})
    table = lancedb.connect(tmp_path).create_table("images", rows)
    found = [table.search(query).distance_type("dot").limit(K).to_list() for query in index.queries]
    scores = [[1 - hit["_distance"] for hit in hits] for hits in found]
    index.check("LanceDB", [[hit["row"] for hit in hits] for hits in found], scores)


def test_qdrant_returns_the_results_of_search(index: Index) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    vectors = models.VectorParams(size=index.vectors.shape[1], distance=models.Distance.DOT)
    client.create_collection("images", vectors_config=vectors)
    client.upload_collection("images", vectors=index.vectors, ids=range(len(index.vectors)))
    found = [client.query_points("images", query=query, limit=K).points for query in index.queries]
    client.close()
    index.check("Qdrant", [[hit.id for hit in hits] for hits in found], [[hit.score for hit in hits] for hits in found])
