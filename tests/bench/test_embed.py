"""Whether `prolip embed` is bound by the model and not by loading, on this machine's cores: `pytest -m bench -s`.

A small tower, which asks the loader for more than a published one does.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.images import encode
from tests.support.shards import write_tar

from prolip.embeddings.config import EmbedOptions
from prolip.embeddings.embed import run_embed
from prolip.embeddings.storage import Manifest
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.hub import save_pretrained
from prolip.store.folder import Folder

SHARDS = 3
LARGEST_WAIT = 0.05


def write_shard(path: Path, count: int, rng: np.random.Generator) -> None:
    """`count` images of 512 x 384 pixels, as coarse as photographs."""
    members = []
    for number in range(count):
        coarse = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        large = Image.fromarray(coarse).resize((512, 384), Image.Resampling.BICUBIC)
        members.append((f"{number:06d}.jpg", encode(large, "JPEG", quality=95)))
    write_tar(path, members)


@pytest.mark.bench
def test_embedding_rarely_waits_for_the_loader(tmp_path, capsys, full):
    config = ARCHITECTURES["demo"]
    if full:
        base = ARCHITECTURES["ViT-B-16"]
        vision = dataclasses.replace(base.vision, width=192, head_width=64)
        text = dataclasses.replace(base.text, width=512, heads=8, layers=1)
        config = dataclasses.replace(base, embed_dim=512, vision=vision, text=text)
    torch.manual_seed(0)
    model = ProLIP(config)
    save_pretrained(model, tmp_path / "model")
    rng = np.random.default_rng(0)
    for shard in range(SHARDS):
        write_shard(tmp_path / f"{shard}.tar", 200 if full else 2, rng)
    data = (str(tmp_path / f"{{0..{SHARDS - 1}}}.tar"),)
    told = run_embed(EmbedOptions(checkpoint=str(tmp_path / "model"), shards=data, out=str(tmp_path / "out")))
    with capsys.disabled():
        print(f"\nViT-Ti/16: {told[1]}")
    assert not full or Manifest.read(Folder(str(tmp_path / "out"))).run["wait_share"] < LARGEST_WAIT
