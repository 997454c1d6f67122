"""Shards and settings of the GPU run, in full and in small."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
from PIL import Image
from tests.support.flags import latest
from tests.support.shards import write_tar
from tokenizers import Tokenizer, models, pre_tokenizers

from prolip.train.config import load_config
from prolip.train.loop import set_up

RECIPE = "vit-b16-datacomp-1b-1.28b"
VOCABULARY = 49_408
"""Rows of CLIP's token table."""
_WORDS = (
    *("red", "green", "blue", "small", "large", "old", "new", "dog", "cat", "horse", "bird", "house"),
    *("river", "street", "market", "table", "running", "photograph", "painting", "with", "near", "under"),
    *("behind", "of", "in", "on"),
)


def encoded_image(seed, size, noise=12.0):
    """A JPEG that costs the loader as much as a photograph of that size: coarse colours, and noise for detail.

    468 × 401 pixels make about 98 kB and take 1.0 ms of a core, like the photographs of docs/benchmarks.md.
    """
    generator = np.random.default_rng(seed)
    width, height = size
    coarse = Image.fromarray(generator.integers(0, 256, (height // 12 + 1, width // 12 + 1, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float32)
    pixels = pixels + noise * generator.standard_normal((height, width, 1), np.float32)
    written = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(written, "JPEG", quality=90)
    return written.getvalue()


def caption(generator):
    return " ".join(generator.choice(_WORDS, generator.integers(6, 16)))


def write_shards(folder, *, shards, samples, num_images, size):
    """Write shards of `samples` samples each; returns the mean number of bytes of an image."""
    with ThreadPoolExecutor() as threads:
        images = list(threads.map(lambda seed: encoded_image(seed, size), range(num_images)))
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for shard in range(shards):
        members = []
        for place in range(samples):
            key = f"{shard:02}{place:05}"
            members += [(f"{key}.jpg", images[(shard * samples + place) % num_images])]
            members += [(f"{key}.txt", caption(generator).encode())]
        write_tar(folder / f"{shard:02}.tar", members)
    return sum(map(len, images)) // num_images


def write_inputs(job):
    """Write the shards and the tokenizer of all parts; returns the mean number of bytes of an image."""
    write_tokenizer(job.scratch / "tokenizer.json")
    if job.small:
        return write_shards(shards_of(job), shards=2, samples=32, num_images=16, size=(60, 48))
    return write_shards(shards_of(job), shards=4, samples=512, num_images=256, size=(468, 401))


def write_tokenizer(path):
    """A token for every word of the captions, so that the small model is small."""
    words = {word: number for number, word in enumerate(["<pad>", "[UNK]", "[MASK]", *_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))


def shards_of(job):
    return job.scratch / "shards"


def pattern(job):
    return str(shards_of(job) / "*.tar")


@contextmanager
def opened_run(config, ranks):
    """A new run, which has its folder until the block ends."""
    with ExitStack() as opened:
        yield set_up(config, ranks, opened)


def settings(job, name, *flags):
    """The settings of `arguments`."""
    return load_config(arguments(job, name, *flags))


def arguments(job, name, *flags):
    """Arguments of `prolip train`: the recipe of the base model on the made shards, with CLIP's tokenizer.

    The run is `name` in the scratch folder. Compilation is off unless a flag says otherwise.
    """
    found = ["--data.tokenizer.kind", "clip", "--data.tokenizer.path", "None", "--data.tokenizer.clean", "None"]
    found += f"--data.tokenizer.pad_id None --model.text.vocab_size {VOCABULARY}".split()
    found += ["--data.shards", pattern(job), "--out", str(job.scratch / "runs" / name)]
    found += ["--samples_seen", "1000000", "--optim.warmup_steps", "10"]
    found += ["--parallel.compile", "False"]
    if job.small:
        found += ["--data.num_threads", "1", "--cpu_threads", "1", "--log.peak_tflops", "1"]
    return latest([RECIPE, *found, *flags])


def trial(job):
    """Flags of a small model in which every term of the loss counts, so that an error in one shows."""
    width, layers, size, patch, length = ("32", "1", "32", "16", "16") if job.small else ("256", "4", "96", "16", "32")
    flags = ["--model.embed_dim", width, "--model.vision.image_size", size, "--model.vision.patch_size", patch]
    for tower in ("vision", "text"):
        flags += [f"--model.{tower}.width", width, f"--model.{tower}.layers", layers]
    flags += f"--model.vision.head_width {int(width) // 4} --model.text.heads 4".split()
    flags += ["--model.text.context_length", length, "--data.tokenizer.context_length", length]
    flags += ["--loss.inclusion_weight", "0.1", "--loss.masked_inclusion_weight", "0.1", "--loss.vib_weight", "0.1"]
    flags += ["--loss.inclusion_scale", "2.0"]
    flags += f"--data.tokenizer.kind file --data.tokenizer.path {job.scratch}/tokenizer.json".split()
    return [*flags, "--model.text.vocab_size", "64", "--data.mask.mask_id", "2"]
