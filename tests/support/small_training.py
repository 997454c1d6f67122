"""A data set and a model small enough that a whole run takes seconds."""

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tests.support.flags import latest
from tests.support.images import encode
from tests.support.ranks import Job
from tests.support.shards import write_tar
from tests.support.warm_python import warm_python
from tokenizers import Tokenizer, models, pre_tokenizers

from prolip.checkpoint import find_latest
from prolip.train.loop import main

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220), "black": (10, 10, 10)}
PLACES = {"left": (0, 0, 6, 12), "right": (6, 0, 12, 12), "top": (0, 0, 12, 6), "bottom": (0, 6, 12, 12)}

TRAIN = ("-m", "prolip.train")


def write_shard(path, numbers=range(64), sizes=((12, 12),)):
    """Images of a coloured half, 64 different ones, each with its caption and a more general one; of sizes in turn."""
    kinds = list(itertools.product(COLOURS, PLACES, range(4)))
    members = []
    for number in numbers:
        colour, place, shade = kinds[number % len(kinds)]
        image = Image.new("RGB", (12, 12), (250 - 20 * shade,) * 3)
        image.paste(COLOURS[colour], PLACES[place])
        record = {"captions": {"name": [f"{colour} {place}"], "group": [colour]}}
        image = image.resize(sizes[number % len(sizes)])
        members += [(f"{number:04d}.png", encode(image, "PNG")), (f"{number:04d}.json", json.dumps(record).encode())]
    write_tar(path, members)


def write_tokenizer(path):
    words = ["<pad>", "[UNK]", *COLOURS, *PLACES]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))


RECIPE = """
architecture = "demo"
samples_seen = 384
batch_size = 16
precision = "fp32"
cpu_threads = 1
log_every = 10
checkpoint_every = 20
keep_checkpoints = 2

[model]
embed_dim = 16
init_logit_bias = -5.466
vision = {{ image_size = 12, patch_size = 6, width = 16, head_width = 8, layers = 1, init_unc_bias = -6 }}
text = {{ width = 16, heads = 2, layers = 1, vocab_size = 10, context_length = 4, init_unc_bias = -6 }}

[data]
shards = ["{folder}/train.tar"]
tokenizer = {{ kind = "file", path = "{folder}/tokenizer.json", context_length = 4 }}
num_threads = 1

[data.mask]
masked_fraction = 0.25
patch_draw = "sample"
keep_ratio = 0.5
text_mode = "remove"
general_prob = 0.5

[[data.captions]]
sources = [{{ key = "captions.name", general = ["captions.group"] }}]

[optim]
lr = 3e-3
warmup_steps = 10
clip_norm = 1.0
"""

VALIDATED = """
[[validation.jobs]]
name = "pairs"
kind = "retrieval"
shards = ["{folder}/train.tar"]
captions = ["captions.name"]
every = 8
batch_size = 10

[[validation.jobs]]
name = "unsure"
kind = "uncertainty"
shards = ["{folder}/train.tar"]
captions = ["captions.name", "captions.group"]
every = 100
"""
"""What the recipe gains to be evaluated during the run."""
SHORT = ("--samples_seen", "320")
SHARDED = (
    *("--samples_seen", "384", "--checkpoint_every", "10", "--keep_checkpoints", "9", "--log_every", "100"),
    *("--keep_best", "val/pairs/image_to_text_mean_rank", "--best_is", "min"),
    *("--parallel.strategy", "fsdp", "--ema.decay", "0.9"),
)
"""24 steps of a model that is sharded, averaged and evaluated."""


@dataclass(frozen=True)
class Lab:
    """Runs of the small recipe, each in a folder of its own."""

    folder: Path

    def words(self, name, *flags):
        return latest([str(self.folder / "recipe.toml"), "--out", str(self.folder / name), *flags])

    def here(self, name, *flags):
        """Runs in this process; the exit status."""
        return main(self.words(name, *flags))

    def start(self, name, *flags, processes, program=TRAIN, **variables):
        """Starts a run in other processes, as torchrun would; with more variables in their environment."""
        told = self.folder / "told" / name
        return Job([*program, *self.words(name, *flags)], processes=processes, told=told, variables=variables)

    def torchrun(self, name, *flags, processes, restarts=0, program=TRAIN):
        """Starts torchrun itself: it is the one process of the job, and ends or restarts its own."""
        launcher = f"-m torch.distributed.run --standalone --nproc-per-node {processes}".split()
        launcher += ["--max-restarts", str(restarts)]
        python = str(warm_python(self.folder))
        return self.start(name, *flags, processes=1, program=[*launcher, *program], PYTHON_EXEC=python)

    def launch(self, name, *flags, processes, program=TRAIN):
        """A run in other processes to its end."""
        with self.start(name, *flags, processes=processes, program=program) as job:
            assert job.wait() == [0] * processes, job.told()

    def has(self, name, pattern):
        """Asks whether the run has files of such names."""
        return lambda: list((self.folder / name).glob(pattern))

    def copy(self, name, copy):
        """Copies a run's folder, for a test that changes it."""
        shutil.copytree(self.folder / name, self.folder / copy, symlinks=True)  # `best` is a link

    def latest(self, name):
        checkpoint = find_latest(self.folder / name / "checkpoints")
        assert checkpoint is not None
        return checkpoint

    def rows(self, name):
        return [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]


def same_weights(one, other):
    """Whether two checkpoints agree in every bit of the model and the optimiser."""
    pairs = ((one.model(), other.model()), (one.optimizer(), other.optimizer()))
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


def numbers(rows, name):
    return [row[name] for row in rows]
