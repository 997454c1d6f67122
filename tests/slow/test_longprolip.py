"""LongProLIP: a model with captions of 64 tokens continues with 256, by the published recipe."""

import itertools

import numpy as np
import pytest
import torch
from tests.support.flags import latest
from tests.support.shards import encoded, write_tar
from tests.support.small_training import COLOURS, PLACES, numbers

from prolip.data import BatchLoader
from prolip.models import ProLIP
from prolip.models.hub import save_pretrained
from prolip.pretrained.sources import load_network, new_model
from prolip.train.config import load_config
from prolip.train.loop import main

SMALL = """--model.embed_dim 32 --model.vision.width 32 --model.vision.head_width 16 --model.vision.layers 2
--model.text.width 32 --model.text.heads 2 --model.text.layers 1"""
WORDS = 150


@pytest.fixture(scope="module")
def short(lab):
    """A model in the shape of the released ViT-B/16, and as saved by them: a table for 64 tokens, [UNC] and [CLS]."""
    config = load_config(["vit-b16-datacomp-1b-1.28b", *SMALL.split(), "--data.shards", "unused"]).model
    torch.manual_seed(0)
    model = ProLIP(config)
    save_pretrained(model, lab.folder / "before-long")
    members = []
    for number, (colour, place) in enumerate(itertools.product(COLOURS, PLACES)):
        caption = " ".join(itertools.islice(itertools.cycle([colour, place, place]), WORDS))
        members += [
            (f"{number:04d}.png", encoded(COLOURS[colour], (48, 48))),
            (f"{number:04d}.txt", caption.encode()),
        ]
    write_tar(lab.folder / "long.tar", members)
    return model


def long_words(lab, form, *flags):
    data = f"--data.shards {lab.folder}/long.tar --data.tokenizer.path {lab.folder}/tokenizer.json".split()
    here = ["--cpu_threads", "1", "--data.num_threads", "1", "--precision", "fp32", "--log_every", "1"]
    start = ["--start_from", str(lab.folder / "before-long"), "--start_resize", form]
    return latest(["longprolip-vit-b16-24m", *SMALL.split(), *data, *here, *start, *flags])


def test_longprolip_trains_every_position_on_long_captions(lab, short):
    run = ("--samples_seen", "24", "--batch_size", "8", "--optim.lr", "1e-3", "--out", str(lab.folder / "long"))
    words = long_words(lab, "official", *run)
    config = load_config(words)
    with BatchLoader(config.loader(1)) as loader:
        ids = torch.from_numpy(np.array(next(iter(loader)).token_ids))
    assert ids.shape[-1] == 256
    assert bool((ids[..., :WORDS] != config.data.tokenizer.pad_id).all())
    assert main(words) == 0
    rows = lab.rows("long")
    assert numbers(rows, "step") == [1, 2, 3]
    assert all(row["masked_text_inclusion"] > 0 for row in rows)
    start = new_model(config.model, config.start_from, config.start_resize).text.positional_embedding
    moved = (load_network(lab.folder / "long").text.positional_embedding - start).abs().amax(1)
    assert bool((moved > 0).all())
