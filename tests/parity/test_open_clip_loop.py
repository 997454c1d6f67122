"""`prolip eval` on a model of open_clip beside open_clip's own zero-shot loop on the same files, to the last digit."""

import json
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
from open_clip_train.zero_shot import run
from PIL import Image
from tests.support.datacomp_sets import NAMES, TASKS, TEMPLATES, write_lists, write_open_clip, write_shards
from tests.support.images import encode
from tests.support.suite_results import values
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from prolip.cli import main

# Wide, high, tiny, larger than the crop by odd margins.
SIZES = [(16, 16), (90, 7), (7, 90), (1, 1), (33, 20), (20, 33), (121, 64)]
KINDS = [
    ("RGB", "jpeg"),
    ("L", "jpeg"),
    ("CMYK", "jpeg"),
    ("P", "png"),
    ("RGBA", "png"),
    ("LA", "png"),
    ("1", "png"),
    ("RGBA", "webp"),
]
COUNT = 8 * len(KINDS) + 3
TASK = TASKS["cars"]
PREPROCESSES = [
    {"size": 16},
    {"size": 24, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    {"size": 16, "resize_mode": "squash"},
    {"size": 16, "resize_mode": "longest", "fill_color": 0},
    {"size": [16, 24]},
]


def encoded_images():
    """Extensions and bytes, of every mode that files come in, with all that can be lost in it."""
    draw = np.random.default_rng(3)
    made = []
    for number in range(COUNT):
        mode, kind = KINDS[number % len(KINDS)]
        width, height = SIZES[number % len(SIZES)]
        channels = {"RGBA": 4, "CMYK": 4, "LA": 2}.get(mode, 3)
        blocks = draw.integers(0, 256, (-(-height // 4), -(-width // 4), channels), dtype=np.uint8)
        pixels = blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width] // draw.integers(1, 4, channels)
        given = {2: "LA", 3: "RGB", 4: mode}[channels]
        image = Image.frombytes(given, (width, height), pixels.astype(np.uint8).tobytes())
        if mode == "P":
            image = image.quantize(32)
        elif mode != given:
            image = image.convert(mode)
        picture = encode(image, kind, **({"transparency": 1} if (mode, kind) == ("P", "png") else {}))
        made.append((kind, picture))
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same images as shards of the published layout and as a folder of folders."""
    root = tmp_path_factory.mktemp("loop")
    folder = root / "data" / TASK.folders[0]
    write_lists(folder, NAMES, TEMPLATES)
    samples = []
    for number, (kind, data) in enumerate(encoded_images()):
        label = number * 5 % len(NAMES)
        samples.append([(f"s{number:04}.{kind}", data), (f"s{number:04}.cls", str(label).encode())])
        place = root / "folders" / f"{label:03}" / f"{number:04}.{kind}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    write_shards(folder / "test", samples)
    return root


def accuracy(output, target, topk):
    """open_clip's counts of hits; its own function makes a float of an array of one number, as numpy 2.4 refuses to."""
    best = output.topk(max(topk), 1, True, True).indices
    return [float((best[:, :k] == target[:, None]).sum()) for k in topk]


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # Pillow's: what is transparent becomes opaque
@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=str)
def test_zero_shot_accuracy_equals_open_clips_evaluation_loop(preprocess, written, tmp_path, monkeypatch):
    monkeypatch.setattr("open_clip_train.zero_shot.accuracy", accuracy)
    source = write_open_clip(tmp_path / "model", preprocess, preprocess["size"])
    name = source.removeprefix("open_clip:")
    model, _, transform = open_clip.create_model_and_transforms(name)
    templates = [lambda text, template=template: template.format(c=text) for template in TEMPLATES]
    classifier = open_clip.build_zero_shot_classifier(model.eval(), open_clip.get_tokenizer(name), NAMES, templates)
    loader = DataLoader(ImageFolder(str(written / "folders"), transform=transform), batch_size=10)
    assert len(loader.dataset) == COUNT
    top1, top5 = run(model, classifier, loader, SimpleNamespace(device="cpu", precision="fp32", batch_size=10))

    words = ["--checkpoint", source, *f"--data {written}/data --out {tmp_path}/out".split()]
    assert main(["eval", "datacomp", *words, "--tasks", TASK.key, "--num_resamples", "0", "--batch_size", "7"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = {id.measure: value for id, value in values(results, data=TASK.name).items()}
    assert (found["accuracy"], found["top5_accuracy"]) == (top1, top5)
    assert {row["num_items"] for row in results["figures"] if row["id"]["data"] == TASK.name} == {COUNT}
    assert 0 < top1 < top5 < 1
