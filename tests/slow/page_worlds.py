"""The surroundings of the pages' code: data and runs in a folder, repositories of a hub, models of open_clip.

All of it is small and made here. Names are those of the pages; `serving` stands for the servers.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tests.slow.page_commands import MINUTELY, ROOT
from tests.support import siglip
from tests.support.captioned_sets import COUNT, caption, write_annotations, write_hierarchies, write_pairs
from tests.support.class_folders import write_class_folders
from tests.support.datacomp_sets import TASKS, write_open_clip, write_task
from tests.support.emoji_build import build_made_up
from tests.support.images import noise
from tests.support.onnx_table import make_table_once
from tests.support.released_hub import siglips_tokenizer
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import WORDS, write_run

from prolip import cli
from prolip.build.emoji import build as emoji
from prolip.gaussian import Gaussian
from prolip.models import ProLIP
from prolip.models.hub import save_pretrained
from prolip.train.config import load_config

Patch = pytest.MonkeyPatch
CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
"""In open_clip's words what `MINUTELY` makes of a recipe."""
IMAGE_IDS = [100 + number for number in range(COUNT)]

# ---- data and runs --------------------------------------------------------------------------------------------------


def images(folder):
    """Four class folders of ten images, images beside their texts, and a table."""
    rows = ["image,caption"]
    for colour in ("red", "green", "blue", "yellow"):
        for number in range(10):
            image = Image.new("RGB", (40, 40), "white")
            shape = "circle" if number % 2 else "square"
            draw = ImageDraw.Draw(image)
            (draw.ellipse if number % 2 else draw.rectangle)((4, 4, 20 + number, 20 + number), fill=colour)
            for place in (folder / "images" / f"{colour}_{shape}", folder / "paired"):
                place.mkdir(parents=True, exist_ok=True)
                image.save(place / f"{colour}{number}.png")
            (folder / "paired" / f"{colour}{number}.txt").write_text(f"a {colour} {shape}")
            rows.append(f"paired/{colour}{number}.png,a {colour} {shape}")
            place = folder / "photos"
            place.mkdir(exist_ok=True)
            image.save(place / f"{number:04}_{colour}_{shape}.jpg")
    (folder / "table.csv").write_text("\n".join(rows))


def mine(folder):
    """The images, and shards of them."""
    images(folder)
    words = ["data", "build", "folder", "--images", "images", "--out", "data/mine", "--val_share", "0.2"]
    assert cli.main(words) == 0


def own_images(folder):
    images(folder)
    shutil.copytree(folder / "images", folder / "test")


def captioned(folder, digits=5, prefix=""):
    """Two shards of images with captions: 00000.tar and 00001.tar, of so many digits."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        samples = []
        for number in range(16):
            image = encoded((number * 15, 40, 200 * shard), (40, 32), "jpeg")
            samples += [(f"{shard}{number:03}.jpg", image), (f"{shard}{number:03}.txt", b"a picture of travel")]
        write_tar(folder / f"{prefix}{shard:0{digits}}.tar", samples)


def emoji_run(folder):
    """A run of a tiny model, and images with groups, named as the demo's are."""
    data = folder / "data" / "emoji"
    data.mkdir(parents=True)
    write_run(folder / "runs" / "demo", data / "tokenizer.json", context_length=20)
    samples = []
    for number, group in enumerate(["animals and nature", "food and drink", "travel"] * 5):
        samples += [
            (f"{number:03}.png", encoded((number * 9, 40, 200 - number * 9))),
            (f"{number:03}.json", json.dumps({"group_text": group}).encode()),
        ]
    write_tar(data / "test-openmoji-000.tar", samples)
    images(folder)


def engines(folder, _):
    """A run, images, and a Ray of two cores."""
    import ray

    emoji_run(folder)
    ray.init("local", num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)


def many_emoji(folder):
    """A run of a tiny model, and more images than an index may leave out unseen."""
    emoji_run(folder)
    samples = [(f"{number:03}.png", encoded((number % 256, 40 + number // 2, 200))) for number in range(300)]
    write_tar(folder / "data" / "emoji" / "test-openmoji-001.tar", samples)


def emoji_training(folder):
    """Shards as `prolip data build emoji` writes for training, and a tokenizer."""
    data = folder / "data" / "emoji"
    data.mkdir(parents=True)
    write_run(folder / "runs" / "other", data / "tokenizer.json", context_length=20)
    samples = []
    for number in range(64):
        captions = {level: [f"a picture of {level}"] for level in ("name", "subgroup", "group", "picture")}
        samples += [
            (f"{number:03}.png", encoded((number * 3, 40, 200 - number * 3))),
            (f"{number:03}.json", json.dumps({"captions": captions}).encode()),
        ]
    write_tar(data / "train-000.tar", samples)


RECIPE = """
architecture = "demo"
samples_seen = 32
batch_size = 8

[model.text]
vocab_size = 49408

[data.tokenizer]
context_length = 20

[data.mask]
text_mode = "remove"

[optim]
warmup_steps = 1
"""


def recipe(folder):
    (folder / "RECIPE.toml").write_text(RECIPE)


# ---- what others have ----------------------------------------------------------------------------------------------


def clips(folder, patch):
    """CLIP and SigLIP models: open_clip's names for them, the repositories that those lead to, and a file."""
    for name in ("ViT-B-16", "ViT-B-32"):
        patch.setitem(open_clip.factory._MODEL_CONFIGS, name, CLIP)
    hub = folder / "hub" / "models"
    laion, timm = hub / "laion" / "CLIP-ViT-B-16-laion2B-s34B-b88K", hub / "timm" / "ViT-B-16-SigLIP"
    clip = open_clip.CLIP(**CLIP)
    laion.mkdir(parents=True)
    save_file(clip.state_dict(), laion / "open_clip_model.safetensors")
    (folder / "weights").mkdir()
    torch.save(clip.state_dict(), folder / "weights" / "mine.pt")

    siglips_tokenizer(timm)
    described = siglip.architecture("vit_prolip_lab", 12, width=16, heads=2, layers=1, vocab=20, context=64)
    described["text_cfg"]["hf_tokenizer_name"] = "timm/ViT-B-16-SigLIP"
    described["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    (timm / "open_clip_config.json").write_text(json.dumps({"model_cfg": described, "preprocess_cfg": {}}))
    towers = {name: value for name, value in described.items() if name != "custom_text"}
    save_file(open_clip.CustomTextCLIP(**towers).state_dict(), timm / "open_clip_model.safetensors")

    from transformers import Siglip2Config, Siglip2Model

    siglips_tokenizer(google := hub / "google" / "siglip2-base-patch16-naflex")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"vision_config": {**small, "num_patches": 16}, "text_config": {**small, "vocab_size": 20}}
    Siglip2Model(Siglip2Config(**sizes)).save_pretrained(google)


def released(folder):
    """The released model, small, and the files of its tokenizer where recipes look for them, and on the hub."""
    model = ProLIP(load_config(["vit-b16-datacomp-1b-1.28b", "--data.shards", "none", *MINUTELY]).model)
    hub = folder / "hub" / "models"
    save_pretrained(model, hub / "SanghyukChun" / "ProLIP-ViT-B-16-DC-1B-12_8B")
    siglips_tokenizer(hub / "timm" / "ViT-B-16-SigLIP")
    siglips_tokenizer(folder)


def coco(folder, patch):
    """Images with COCO's ids, as shards for testing and for validation, and a package that knows what is right."""
    write_pairs(folder / "pairs")
    (folder / "data" / "coco").mkdir(parents=True)
    for shard in (folder / "pairs" / "test").glob("*.tar"):
        for split in ("test", "val"):
            shutil.copy(shard, folder / "data" / "coco" / f"{split}-{shard.name}")
    for number, _ in enumerate(write_annotations(folder / "data" / "coco" / "annotations", 40)):
        noise(number).save(folder / "data" / "coco" / f"{number}.jpg")
    package = folder / "packages" / "eccv_caption"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    captions = {image: [1000 + 3 * number + place for place in range(3)] for number, image in enumerate(IMAGE_IDS)}
    images = {caption: [image] for image, own in captions.items() for caption in own}
    for whose in ("original", "cxc", "eccv"):
        (package / "data" / f"{whose}_image_to_caption.json").write_text(json.dumps(captions))
        (package / "data" / f"{whose}_caption_to_image.json").write_text(json.dumps(images))
    np.save(package / "data" / "coco_test_ids.npy", np.array(list(images)))
    patch.delitem(sys.modules, "eccv_caption", raising=False)
    patch.syspath_prepend(folder / "packages")


def hierarchies(folder):
    """HierarCaps, as a data set for the suite and as a table of as many rows as there are images of COCO."""
    write_hierarchies(folder / "data" / "hierarcaps")
    rows = [f"picture => {WORDS[2 + n % 2]} => {caption(n, 0)},http://example.org/{n}.jpg" for n in range(COUNT)]
    (folder / "hierarcaps_test.csv").write_text("\n".join(["captions,image_url", *rows]))


# ---- by page --------------------------------------------------------------------------------------------------------


def readme(folder, patch):
    emoji_run(folder)
    released(folder)
    cat_and_dog(folder)
    clips(folder, patch)
    (folder / "img_emb").mkdir()
    draw = np.random.default_rng(0)
    for name, rows in (("img_emb/img_emb_0", 200), ("queries", 100)):
        np.save(folder / f"{name}.npy", draw.normal(size=(rows, 16)).astype(np.float16))


def cat_and_dog(folder):
    """Images by the names that pages give to them."""
    for seed, name in enumerate(("cat", "dog")):
        noise(seed).save(folder / f"{name}.jpg")


def model_zoo(folder, _):
    released(folder)
    cat_and_dog(folder)


def use_a_model(folder, _):
    emoji_run(folder)
    model_zoo(folder, _)


def tutorial(folder, patch):
    """An address to clone from, every sixteenth emoji, and a released model."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:  # a hook's, which name another repository
        patch.delenv(name)
    address = folder / "ADDRESS"
    (address / "rust").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "Cargo.toml", "Cargo.lock"):
        shutil.copy(ROOT / name, address)
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", "-C", str(address), *words], check=True)
    table = [one for one in emoji.read_table() if int(one.codepoints[0], 16) % 16 == 0]
    patch.setattr(emoji, "read_table", lambda: table)
    model_zoo(folder, patch)


def evaluate(folder, patch):
    """A run, emoji shards, a small model of open_clip, and small data sets in the published layout."""
    images(folder)
    build_made_up(folder / "data" / "emoji")
    write_run(folder / "runs" / "demo", folder / "data" / "emoji" / "tokenizer.json", context_length=20)
    write_run(folder / "runs" / "mine", folder / "mine-tokenizer.json", context_length=20)
    write_open_clip(folder / "models" / "clip")
    for key in (
        "cifar10",
        "imagenet1k",
        "imagenet-a",
        "wilds/fmow",
        "misc/winogavil",
        "retrieval/flickr_1k_test_image_text_retrieval",
    ):
        write_task(folder / "data" / "datacomp", TASKS[key], count=40)
    for key in ("imagenet1k", "vtab/dtd"):
        write_task(folder / "hub" / "datasets" / "djghosh", TASKS[key])
    released(folder)
    coco(folder, patch)
    hierarchies(folder)


def start_from_clip(folder, patch):
    mine(folder)
    write_run(folder / "runs" / "mine", folder / "mine-tokenizer.json", context_length=20)
    clips(folder, patch)
    released(folder)
    captioned(folder / "data" / "long", prefix="train-")


def adapt_a_frozen_clip(folder, patch):
    """Models of open_clip, pairs for them, labelled images and one more."""
    mine(folder)
    clips(folder, patch)
    write_class_folders(folder / "labelled")
    cat_and_dog(folder)


def decide(folder, _):
    """A run, labelled images, and photos from elsewhere."""
    write_run(folder / "runs" / "demo", folder / "tokenizer.json", context_length=20)
    for name in ("labelled", "new"):
        write_class_folders(folder / name)
    for name in ("cat", "dog"):
        Image.new("RGB", (40, 40), "gray").save(folder / f"{name}.jpg")
    (folder / "decoys.txt").write_text("a cup")
    images(folder)


def doubt(folder, _):
    """A run, and emoji shards."""
    build_made_up(folder / "data" / "emoji")
    write_run(folder / "runs" / "demo", folder / "data" / "emoji" / "tokenizer.json", context_length=20)


def onnx(folder, _):
    """A run and images; torch's table of operators is made once for both towers."""
    emoji_run(folder)
    make_table_once()


def hugging_face(folder, patch):
    """A run, images, and the released model; code that comes with a model is copied into the folder, too."""
    emoji_run(folder)
    released(folder)
    patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules"))


def multi_node(folder, _):
    emoji_training(folder)
    siglips_tokenizer(folder)
    siglips_tokenizer(folder / "shared" / "siglip")
    for place in ("shared", "data"):
        captioned(folder / place / "datacomp", digits=8)


def index_shards(folder, _):
    recipe(folder)
    captioned(folder / "data", prefix="train-")


def remote_shards(folder, _):
    mine(folder)
    recipe(folder)
    captioned(folder / "store" / "my-bucket", prefix="train-")


def open_clips_training(folder, patch):
    mine(folder)
    clips(folder, patch)
    captioned(folder / "shards")


def alone(make):
    return lambda folder, _: make(folder)


PREPARE = {
    "README.md": readme,
    "adapt-a-frozen-clip.md": adapt_a_frozen_clip,
    "choose-samples.md": alone(emoji_run),
    "promises.md": decide,
    "results.md": doubt,
    "deduplicate.md": alone(emoji_run),
    "embed-and-search.md": engines,
    "engines.md": engines,
    "evaluate.md": evaluate,
    "exact-pixels.md": use_a_model,
    "explore.md": alone(emoji_run),
    "hugging-face.md": hugging_face,
    "index-shards.md": index_shards,
    "iterable-dataset.md": alone(mine),
    "loader.md": alone(mine),
    "model-zoo.md": model_zoo,
    "multi-node.md": multi_node,
    "native-aspect.md": alone(mine),
    "onnx.md": onnx,
    "open-clip.md": open_clips_training,
    "own-training-loop.md": alone(mine),
    "prompt-weights.md": doubt,
    "remote-shards.md": remote_shards,
    "start-from-clip.md": start_from_clip,
    "tokenizers.md": clips,
    "train-on-your-shards.md": alone(siglips_tokenizer),
    "tutorial.md": tutorial,
    "use-a-model.md": use_a_model,
    "vector-databases.md": alone(many_emoji),
    "watch-a-run.md": alone(mine),
    "your-own-images.md": alone(own_images),
}


def names_for(page):
    """What a page's Python takes as given."""
    if page == "start-from-clip.md":
        vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
        text = {"context_length": 12, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
        return {"mine": open_clip.CLIP(16, vision, text)}
    if page == "evaluate.md":
        captions = [caption(number, place) for number in range(COUNT) for place in range(3)]
        return {"captions": captions, "image_ids": IMAGE_IDS, "caption_ids": list(range(1000, 1000 + 3 * COUNT))}
    if page != "prompt-weights.md":
        return {}
    generator = torch.Generator().manual_seed(0)
    mean = torch.nn.functional.normalize(torch.randn(3, 5, 16, generator=generator), dim=-1)
    images = torch.nn.functional.normalize(torch.randn(20, 16, generator=generator), dim=-1)
    return {
        "prompts": Gaussian(mean, torch.full_like(mean, -5.0)),
        "images": Gaussian(images, torch.full_like(images, -5.0)),
    }
