"""What an installed package must do on any platform. It needs no checkout: `python smoke.py` in a new environment.

A small model of the released layout is written, opened, and encodes an image and captions.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image

import prolip
from prolip.data import preprocess_image
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.hub import save_pretrained


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        folder = Path(made)
        Image.new("RGB", (40, 30), (10, 20, 30)).save(folder / "grey.png")
        pixels = preprocess_image((folder / "grey.png").read_bytes(), 16)
        assert pixels.shape == (16, 16, 3)
        assert (pixels == (10, 20, 30)).all()
        write_model(folder / "model")
        model = prolip.load(folder / "model")
        images = model.encode_images([folder / "grey.png"])
        texts = model.encode_texts(["a grey picture", "a picture"])
        assert prolip.csd(images, texts).shape == (1, 2)
        assert (images.uncertainty > 0).all()
    command = [sys.executable, "-m", "prolip.cli", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert "train" in shown.stdout
    print(f"prolip {version('prolip')} works with Python {sys.version.split()[0]} and torch {torch.__version__}")


def write_model(folder):
    """Write a model in the hub's layout, with CLIP's tokenizer."""
    demo = ARCHITECTURES["demo"]
    torch.manual_seed(0)
    save_pretrained(ProLIP(replace(demo, text=replace(demo.text, vocab_size=49_408))), folder)


if __name__ == "__main__":
    main()
