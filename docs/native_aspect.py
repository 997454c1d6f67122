"""Rows and columns of emoji, at native aspect and squashed: the runs and the table of docs/native-aspect-results.md.

    python docs/native_aspect.py    # build, train and measure what is not there yet, and print the table

A picture has one to six emoji side by side or one below the other, and its caption names them in order. Words of the
command line go to `prolip train`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from studies import print_table, run_module, spread
from torch import Tensor

import prolip
from prolip.build.emoji.art import TRAINING_DESIGNS, encode_png, find_art
from prolip.build.emoji.names import read_table
from prolip.build.shards import Sample, replace_folder
from prolip.build.vocabulary import train_vocabulary
from prolip.gaussian import Gaussian
from prolip.metrics.retrieval import group_ranks

OUT = Path("runs/native-aspect")
WORDS = (
    "dog wolf fox cat lion tiger horse cow pig goat camel rat rabbit bear koala panda "
    "train tram bus ambulance taxi automobile rocket kite grapes lemon banana cherries bread pizza cookie pie"
)
NAMES = WORDS.split()
LENGTHS = range(1, 7)
TRAINED, HELD_OUT, SEEDS = 12_000, 40, 3
"""Pictures to train on; held-out sets of emoji of each length; runs of each way."""
SIDE = 48
"""Pixels of an emoji, and of a squashed picture."""
FLAGS = (
    "--model.vision.patch_size 6 --model.vision.image_size 48 --model.text.context_length 24 "
    "--model.vision.layers 3 --data.augment.crop_scale 1 1 --data.augment.crop_ratio 1 1 --data.shuffle_window 0 "
    "--batch_size 64 --samples_seen 64000"
)
"""No run crops: each sees whole pictures, in 64 patches at most. Samples are not shuffled, so that a batch has several
pictures that differ only in the order of their emoji."""
NATIVE = (
    "with-native --model.vision.image_seq_len 64 "
    "--data.native.seq_lens 64 --data.native.seq_len_probs 1 --data.native.token_budget 4096"
)
WAYS = {"square": "", "native": NATIVE}
"""Further recipes and flags."""
COLUMNS = [
    *("square/square", "native/native", "native/square"),
    *("native/native/16", "native/native/36", "native/native/100"),
]
"""The way to train, the shape of the held-out pictures, and their patches at most if not 64."""
Rows = list[tuple[str, int]]
"""Captions, each with 1 for a row or 0 for a column."""


def draw_rows() -> dict[str, Rows]:
    """Draw the pictures of each split.

    But for single ones, the emoji of a held-out picture are together in no trained one. Held-out ones are ordered by
    length; each set of emoji has two rows and two columns, in any orders. A trained set has up to four.
    """
    draws, trained = random.Random(0), []
    sets = [draws.sample(NAMES, length) for length, _ in product(LENGTHS, range(HELD_OUT))]
    while len(trained) < TRAINED:
        names = draws.sample(NAMES, draws.choice(LENGTHS))
        if len(names) == 1 or set(names) not in map(set, sets):
            orders = dict.fromkeys(", then ".join(draws.sample(names, len(names))) for _ in range(4))
            trained += [(order, draws.randint(0, 1)) for order in orders]
    held_out = [(", then ".join(draws.sample(names, len(names))), row) for names in sets for row in (1, 1, 0, 0)]
    return {"train": trained, "test": held_out}


def draw(rows: Rows, shape: str) -> Iterator[Sample]:
    """Each emoji in one of two designs, the same one in both shapes."""
    draws, art, keys = random.Random(0), find_art(), {emoji.name: emoji.key for emoji in read_table()}
    cells = {name: [art[design].draw(keys[name], SIDE) for design in TRAINING_DESIGNS] for name in NAMES}
    for place, (caption, row) in enumerate(rows):
        image = Image.fromarray(np.concatenate([draws.choice(cells[name]) for name in caption.split(", then ")], row))
        if shape == "square":
            image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        png, record = encode_png(np.asarray(image)), {"captions": [caption]}
        yield Sample(key=str(place), image=png, extension="png", caption=None, record=record)


def measure(images: Gaussian, captions: Gaussian, texts: list[str]) -> Tensor:
    """Measure in percent, f64 [15]: captions found by length, in rows, in columns; pictures found; 10 σ² by length."""
    places = torch.tensor([texts.index(text) for text in texts])
    right, found = (
        (group_ranks(one, other, places, places) == 0).double().unflatten(0, (len(LENGTHS), -1, 2, 2))
        for one, other in ((images, captions), (captions, images))
    )
    uncertainty = 10 * images.total_var.double().unflatten(0, (len(LENGTHS), -1)).mean(1)
    return 100 * torch.cat([right.mean((1, 2, 3)), right.mean((0, 1, 3)), found.mean()[None], uncertainty])


def main(words: Sequence[str]) -> None:
    """Build, train, measure, and print mean ± standard deviation over seeds."""
    splits, data = draw_rows(), OUT / "data"
    texts = [caption for caption, _ in splits["test"]]
    if not data.exists():
        with replace_folder(data) as folder:
            for (split, rows), shape in product(splits.items(), ("native", "square")):
                folder.write(f"{split}-{shape}", draw(rows, shape), 1000)
            folder.write_text("tokenizer.json", train_vocabulary(texts, 2000).json)
            folder.finish({})
    for seed, (way, flags) in product(range(SEEDS), WAYS.items()):
        read = f"--data.shards {data}/train-{'native' if flags else 'square'}-*.tar"
        out = f"--data.tokenizer.path {data}/tokenizer.json --out {OUT}/{way}-{seed} --seed {seed}"
        run_module("prolip.train", "own-images", *f"{flags} {FLAGS} {read} {out}".split(), *words)
    columns = []
    for column in COLUMNS:
        way, shape, *length = column.split("/")
        measured = []
        for seed in range(SEEDS):
            model = prolip.load(OUT / f"{way}-{seed}", image_seq_len=int(length[0]) if length else None)
            images = model.encode_images(f"{data}/test-{shape}-*.tar")
            measured.append(measure(images, model.encode_texts(texts), texts))
        columns.append(map(spread, torch.stack(measured, 1).tolist()))
    each = [f"{length} emoji" for length in LENGTHS]
    heads = [*each, "rows", "columns", "right picture", *(f"1000 σ², {one}" for one in each)]
    print_table(["", *COLUMNS], zip(heads, *columns, strict=True))


if __name__ == "__main__":
    main(sys.argv[1:])
