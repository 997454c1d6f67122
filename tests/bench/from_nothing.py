"""From `pip install` to the first embedding, prolip beside open_clip: time and lines.

`python -m tests.bench.from_nothing --wheels WHEELS --torch FOLDER`, in an environment that has both. WHEELS has the
wheels of both and of all that they need beside torch (`maturin build`, `pip download`), so that no network is measured.
FOLDER is the site-packages of an environment that has torch alone: every empty environment gets it on its path, since
both need torch. The two take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
from PIL import Image
from safetensors.torch import save_model

from prolip.models.hub import save_pretrained
from prolip.models.open_clip import start_from

ARCHITECTURE = "ViT-B-16"
PROGRAMS = {
    "prolip": """\
import prolip
model = prolip.load("prolip-model", tokenizer="clip")
images = model.encode_images("photo.jpg")
texts = model.encode_texts(["a cat", "an animal"])
print(images.mean[0, :3], texts.mean[0, :3])
""",
    "open_clip_torch": """\
import open_clip
import torch
from PIL import Image
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:open_clip-model")
tokenizer = open_clip.get_tokenizer("local-dir:open_clip-model")
model.eval()
with torch.no_grad():
    images = model.encode_image(preprocess(Image.open("photo.jpg")).unsqueeze(0), normalize=True)
    texts = model.encode_text(tokenizer(["a cat", "an animal"]), normalize=True)
print(images[0, :3], texts[0, :3])
""",
}


@dataclass(frozen=True)
class Spent:
    """Seconds of a command."""

    wall: float
    cpu: float


def spent(command: Sequence[str], folder: Path) -> Spent:
    """Runs a command to its end, which must be a good one; CPU seconds are those of all its threads and children."""
    begun = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Spent(time.perf_counter() - begun, used.ru_utime + used.ru_stime)


def write_models(folder: Path) -> None:
    """The same model with random weights in the layouts of both, and an image."""
    model = open_clip.create_model(ARCHITECTURE)
    save_pretrained(start_from(model), folder / "prolip-model")
    theirs = folder / "open_clip-model"
    theirs.mkdir()
    save_model(model, str(theirs / "open_clip_model.safetensors"))
    config = {"model_cfg": open_clip.get_model_config(ARCHITECTURE), "preprocess_cfg": {}}
    (theirs / "open_clip_config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.jpg")


def one_round(package: str, wheels: Path, torch: Path, folder: Path) -> tuple[Spent, Spent]:
    """Installs a package into an empty environment and runs its program there."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        venv.create(place, with_pip=False, symlinks=True)
        python = Path(place) / "bin" / "python"
        (site,) = Path(place).glob("lib/python*/site-packages")
        (site / "torch.pth").write_text(f"{torch.resolve()}\n")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
        install = spent([*pip, "--find-links", str(wheels.resolve()), package], folder)
        return install, spent([str(python), "-c", PROGRAMS[package]], folder)


def row(name: str, seconds: Sequence[float]) -> str:
    return f"| {name} | {statistics.median(seconds):.1f} s ({min(seconds):.1f} – {max(seconds):.1f}) |"


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--torch", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(words)
    found: dict[str, list[tuple[Spent, Spent]]] = {package: [] for package in PROGRAMS}
    with tempfile.TemporaryDirectory() as place:
        write_models(Path(place))
        for number in range(options.rounds + 1):  # the first fills the caches of files
            for package in list(PROGRAMS)[:: 1 if number % 2 else -1]:
                times = one_round(package, options.wheels, options.torch, Path(place))
                print(number, package, *(f"{one.wall:.2f} {one.cpu:.2f}" for one in times), flush=True)
                if number:
                    found[package].append(times)
    for package, rounds in found.items():
        print(f"\n{package}: {len(PROGRAMS[package].splitlines())} lines, {len(rounds)} rounds, median (least – most)")
        for name, which in (("install", 0), ("program", 1)):
            print(row(f"{name}, wall", [times[which].wall for times in rounds]))
            print(row(f"{name}, CPU", [times[which].cpu for times in rounds]))
        print(row("both, wall", [install.wall + program.wall for install, program in rounds]))
        print(row("both, CPU", [install.cpu + program.cpu for install, program in rounds]))


if __name__ == "__main__":
    main(sys.argv[1:])
