"""Exported folders work in transformers and sentence-transformers where prolip cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.untrained_run import write_run

import prolip
from prolip.cli import main
from prolip.gaussian import Gaussian, csd, csd_logits
from prolip.models import ProLIP

CAPTIONS = ["a picture of animals", "An emoji of FOOD!"]
PROGRAM = """
import sys
sys.modules["prolip"] = None  # importing it fails

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor, pipeline

image, *captions = sys.argv[1:]
with torch.no_grad():
    for place in ("transformers", "transformers-again"):
        model = AutoModel.from_pretrained(place, trust_remote_code=True)
        processor = AutoProcessor.from_pretrained(place, trust_remote_code=True)
        output = model(**processor(images=[image], text=captions, return_tensors="pt"))
        if place == "transformers":
            model.save_pretrained("transformers-again")
            processor.save_pretrained("transformers-again")
classify = pipeline("zero-shot-image-classification", model="transformers", trust_remote_code=True)
scores = {one["label"]: one["score"] for one in classify(image, captions, hypothesis_template="{}")}
extract = pipeline("image-feature-extraction", model="transformers", trust_remote_code=True)
np.savez(
    "transformers.npz",
    **{name: value.numpy() for name, value in output.items()},
    scores=[scores[caption] for caption in captions],
    features=extract(image, return_tensors=True).numpy(),
    pooled=extract(image, return_tensors=True, pool=True).numpy(),
)

for place in ("sentence-transformers", "sentence-transformers-again"):
    model = SentenceTransformer(place, trust_remote_code=True, device="cpu", local_files_only=True)
    if place == "sentence-transformers":
        model.save("sentence-transformers-again")
images, texts = model.encode([image]), model.encode(captions)
stored, queries = model.encode_document([image]), model.encode_query(captions)
np.savez(
    "sentence-transformers.npz",
    images=images,
    texts=texts,
    similarity=model.similarity(texts, images).numpy(),
    pairs=model.similarity_pairwise(texts, texts).numpy(),
    of_queries=model.similarity(queries, stored).numpy(),
    inner=queries @ stored.T,
    log_var=np.stack([row["log_var"].numpy() for row in model.encode(captions, output_value=None)]),
    dimension=model.get_embedding_dimension(),
)
"""
FORMS = ("transformers", "sentence-transformers")


class Exported(NamedTuple):
    """A run's two folders, what the libraries found in them, and our own Gaussians."""

    folder: Path
    found: dict[str, dict[str, np.ndarray]]
    network: ProLIP
    image: Gaussian
    texts: Gaussian


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_run(folder / "run", folder / "tokenizer.json", context_length=12)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    for form in FORMS:
        assert main(["export", str(folder / "run"), "--format", form, "--out", str(folder / form)]) == 0
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, "image.png", *CAPTIONS],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    model = prolip.load(folder / "run", device="cpu")
    assert isinstance(model.network, ProLIP)
    image, texts = model.encode_images(folder / "image.png"), model.encode_texts(CAPTIONS)
    found = {}
    for form in FORMS:
        with np.load(folder / f"{form}.npz") as arrays:
            found[form] = dict(arrays)
    return Exported(folder, found, model.network, image, texts)


def _close(found, expected, atol=1e-6):
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=0, atol=atol)


def test_transformers_loads_a_folder_without_prolip(exported):
    found, image, texts = exported.found["transformers"], exported.image, exported.texts
    _close(found["image_mean"], image.mean)
    _close(found["image_log_var"], image.log_var)
    _close(found["text_mean"], texts.mean)
    _close(found["text_log_var"], texts.log_var)
    network = exported.network
    assert network.logit_bias is not None
    logits = csd_logits(image, texts, network.logit_scale.exp(), network.logit_bias)
    _close(found["logits_per_image"], logits, atol=1e-5)
    _close(found["scores"], logits.softmax(-1)[0], atol=1e-5)
    _close(found["features"], torch.stack(image, 1))
    _close(found["pooled"], image.mean)


def test_sentence_transformers_loads_a_folder_without_prolip(exported):
    found, image, texts = exported.found["sentence-transformers"], exported.image, exported.texts
    _close(found["images"], torch.cat([image.mean, image.total_var[:, None]], 1))
    _close(found["texts"], torch.cat([texts.mean, texts.total_var[:, None]], 1))
    _close(found["log_var"], texts.log_var)
    _close(found["similarity"], 1 - csd(texts, image) / 2)
    _close(found["pairs"], 1 - texts.total_var)
    # Of a query, the variance is left out.
    _close(found["of_queries"], 1 - csd(texts, image) / 2 + texts.total_var[:, None] / 2)
    np.testing.assert_allclose(found["inner"], found["of_queries"], rtol=0, atol=1e-6)
    assert found["dimension"] == image.mean.shape[-1] + 1
