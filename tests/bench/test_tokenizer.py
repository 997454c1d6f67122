"""Tokenizers against open_clip's on captions as COCO has them, in one run: `pytest -m bench -s` on this file.

CPU time of one thread, turn and turn about; every row of ids is compared as well.
"""

import csv
import json
import random
import statistics
import time

import numpy as np
import pytest
from open_clip import SimpleTokenizer
from open_clip.tokenizer import HFTokenizer
from tests.parity.test_tokenizer import _unigram

from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer

MIN_RATIO = 10.0
BATCH = 256

SUBJECTS = ["a man", "a woman", "two dogs", "a group of people", "a young boy", "a cat", "a red bus", "two zebras"]
VERBS = ["riding", "holding", "standing next to", "looking at", "sitting on top of", "playing with", "walking past"]
OBJECTS = ["a surfboard", "a wooden table", "an umbrella", "a plate of food", "a tennis racket", "a stop sign"]
PLACES = ["in the street", "on the beach", "at night", "near a window", "in a kitchen", "under a tree", "by the ocean"]
# What cleaning has to do with in captions from the web.
ODD = ["café", "“quoted”", "it’s", "R&amp;B", "fish &chips", "naïve", "– dash", "voilÃ ", "日本"]


def captions(count, odd_share):
    draw = random.Random(3)
    made = []
    for _ in range(count):
        words = [draw.choice(part) for part in (SUBJECTS, VERBS, OBJECTS, PLACES)]
        text = " ".join(words).capitalize() + draw.choice([".", "", " ."])
        made.append(f"{text} {draw.choice(ODD)}" if draw.random() < odd_share else text)
    return made


def compare(name, texts, ours, theirs, rounds):
    """A line of the table and the ratio of the medians."""
    batches = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    times = {"ours": [], "theirs": []}
    for round_ in range(rounds + 1):
        rows = {}
        for side, encode in (("ours", ours), ("theirs", theirs)):
            begun = time.thread_time()
            rows[side] = [encode(batch) for batch in batches]
            # The first round warms both sides' caches.
            if round_:
                times[side].append((time.thread_time() - begun) / len(texts) * 1e6)
        for mine, other in zip(rows["ours"], rows["theirs"], strict=True):
            assert np.array_equal(mine, other.numpy())
    found = {side: (statistics.median(values), min(values), max(values)) for side, values in times.items()}
    ratio = found["theirs"][0] / found["ours"][0]
    cells = [f"{middle:.2f} ({low:.2f} – {high:.2f})" for middle, low, high in found.values()]
    return f"| {name} | {cells[0]} | {cells[1]} | {ratio:.0f} × |", ratio


@pytest.mark.bench
@pytest.mark.filterwarnings("ignore")
def test_tokenizing_captions_is_faster_than_open_clip(capsys, tmp_path, shared, full):
    ours, theirs = Tokenizer(TokenizerConfig(context_length=77)), SimpleTokenizer(context_length=77)
    lines = []
    count, rounds = (10_000, 7) if full else (20, 1)
    found = [
        compare("CLIP, all plain", captions(count, 0.0), ours.encode, theirs, rounds),
        compare("CLIP, 2 % through ftfy", captions(count, 0.02), ours.encode, theirs, rounds),
        compare("CLIP, 20 % through ftfy", captions(count, 0.2), ours.encode, theirs, rounds),
    ]
    source = shared / "hierarcaps_test.csv"
    if source.is_file():
        with source.open(encoding="utf-8", newline="") as stream:
            real = [row["captions"].split(" => ")[-1] for row in csv.DictReader(stream)]
        found.append(
            compare(
                "CLIP, HierarCaps (of COCO's images)", real[:count] * (10 if full else 1), ours.encode, theirs, rounds
            )
        )
    _unigram().save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    settings = TokenizerConfig(kind="file", path=tmp_path / "tokenizer.json", context_length=64, clean="canonicalize")
    file = HFTokenizer(str(tmp_path), context_length=64, clean="canonicalize")
    lines = [line for line, _ in found]
    line, ratio = compare(
        "pieces from a file, canonicalize", captions(count, 0.0), Tokenizer(settings).encode, file, rounds
    )
    with capsys.disabled():
        print("\n" + "\n".join([*lines, line]))
    # The share that ftfy takes is ftfy's, so that the third has no bound of its own.
    if full:
        assert min(found[0][1], found[1][1]) > MIN_RATIO
        assert ratio > 1
