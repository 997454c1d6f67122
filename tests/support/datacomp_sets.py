"""Small data sets in the published layout of DataComp's evaluation, and small models of open_clip to evaluate."""

import csv
import io
import json
import random
import zipfile

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.support.images import encode
from tests.support.shards import write_tar

from prolip.evaluation.datacomp import read_tasks
from prolip.inference.load_model import of_open_clip

TASKS = {task.key: task for task in read_tasks()}
NAMES = ["red fox", "blue car", "green tree", "gray stone", "white cloud", "black night", "tall tower"]
TEMPLATES = ["a photo of a {c}.", "art of the {c}", "{c}"]
FACES = {
    "race": ["Black", "White", "Indian"],
    "gender": ["Male", "Female"],
    "age": ["young", "old"],
    "toxic": [f"kind {number}" for number in range(21)],
}
METADATA = {"wilds/fmow": (6, 4, 3), "fairness/dollar_street": (3, 4, 4), "fairness/geode": (4, 9)}
"""Numbers of values in each column of the metadata."""


def encoded_image(draw, kind="png"):
    """An image of a random size, colour and pattern."""
    size = draw.randrange(9, 40), draw.randrange(9, 40)
    noise = np.random.default_rng(draw.randrange(2**32))
    pixels = noise.integers(0, 256, (size[1], size[0], 3)) * noise.random(3) + noise.random(3) * 90
    return encode(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), kind)


def array(values):
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype=np.int64))
    return buffer.getvalue()


def write_lists(folder, classnames, templates):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(classnames) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")


def write_shards(folder, samples, shards=2):
    """Samples as members, dealt to shards in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(samples) // shards)
    for number in range(shards):
        some = samples[number * size : (number + 1) * size]
        write_tar(folder / f"{number}.tar", [member for sample in some for member in sample])
    (folder / "nshards.txt").write_text(f"{shards}\n")


def write_task(root, task, count=12):
    """The folder of a task."""
    draw = random.Random(task.key)
    folder = root / task.folders[0]
    match task.metric:
        case "retrieval":
            write_retrieval(folder, draw, count)
        case "associations":
            write_associations(folder, draw, count)
        case "faces":
            write_lists(
                folder,
                [f"{objective}:{name}" for objective, names in FACES.items() for name in names],
                [f"{objective}:a photo of a {{c}} person" for objective in FACES],
            )
            values = [[draw.randrange(2), draw.randrange(2), draw.randrange(3)] for _ in range(count)]
            samples = [
                [(f"s{n:07}.png", encoded_image(draw)), (f"s{n:07}.npy", array([*row, int(row[2] != 1)]))]
                for n, row in enumerate(values)
            ]
            write_shards(folder / "test", samples)
        case _:
            # Two classes to seven; some published folders have their shards in `test`, some images are lossy.
            names = NAMES[: draw.randrange(2, 8)]
            write_lists(folder, names, TEMPLATES[: draw.randrange(1, 4)])
            kind = draw.choice(["png", "jpeg", "webp"])
            samples = []
            for number in range(count):
                key = f"s{number:07}"
                members = [
                    (f"{key}.{kind}", encoded_image(draw, kind)),
                    (f"{key}.cls", str(draw.randrange(len(names))).encode()),
                ]
                if task.key in METADATA:
                    members.append((f"{key}.npy", array([draw.randrange(size) for size in METADATA[task.key]])))
                samples.append(members)
            write_shards(folder / draw.choice(["", "test"]), samples)
    return folder


def write_retrieval(folder, draw, count):
    samples = []
    for number in range(count):
        captions = [f"{draw.choice(NAMES)} beside a {draw.choice(NAMES)} {number}{n}" for n in range(5)]
        members = [
            (f"{number:06}.jpg", encoded_image(draw, "jpeg")),
            (f"{number:06}.txt", "\n".join(captions).encode()),
        ]
        samples.append(members)
    write_shards(folder / "test", samples)


def write_associations(folder, draw, count):
    """WinoGAViL in the hub's layout: a table, and a zip of images."""
    folder.mkdir(parents=True)
    names = [f"thing {number}" for number in range(15)]
    with zipfile.ZipFile(folder / "winogavil_images.zip", "w") as archive:
        for name in names:
            archive.writestr(f"winogavil_images/{name}.jpg", encoded_image(draw, "jpeg"))
    with (folder / "winogavil_dataset.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ID", "cue", "candidates", "associations", "num_associations"])
        for number in range(count):
            candidates = draw.sample(names, draw.choice([5, 6, 10, 12]))
            right = draw.sample(candidates, draw.randrange(1, 4))
            cue = draw.choice(["Apple", "shave", "orbit", "full moon"])
            table.writerow([number, cue, json.dumps(candidates), str(right), len(right)])


@torch.no_grad()
def spread_out(model, image_size):
    """Moves what all images or captions have in common out of their embeddings, so that answers differ."""
    shape = (image_size, image_size) if isinstance(image_size, int) else image_size
    images = torch.rand(64, 3, *shape) * torch.rand(64, 3, 1, 1) * 4 - 2
    texts = open_clip.SimpleTokenizer(context_length=16)([text.format(c=name) for name in NAMES for text in TEMPLATES])
    for tower, given, norm, projection in (
        (model.encode_image, images, model.visual.ln_post, model.visual.proj),
        (model.encode_text, texts, model.ln_final, model.text_projection),
    ):
        mean = tower(given).mean(dim=0)
        norm.bias -= torch.linalg.lstsq(projection.T, mean[:, None]).solution[:, 0]


def write_open_clip(folder, preprocess=None, image_size=16):
    """A small random model of open_clip in a folder; what to give as a checkpoint."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 4, "image_size": image_size},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
        spread_out(model, image_size)
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess or {}}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


def write_packed(folder, rows):
    """A table beside a zip of four images."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"images/{number}.jpg", encoded_image(random.Random(number), "jpeg"))
    with (folder / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def preprocess_of(settings):
    size = settings["size"]
    vision = {"layers": 1, "width": 16, "head_width": 16, "patch_size": 8, "image_size": size}
    model = open_clip.CLIP(8, vision, {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1})
    model.visual.preprocess_cfg = settings
    return of_open_clip(model, lambda texts: torch.zeros(len(texts), 4), "any", torch.device("cpu")).preprocess
