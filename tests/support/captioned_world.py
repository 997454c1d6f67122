"""Small sets of captioned images and of hierarchies, with two models to evaluate on them."""

import json

import torch
from tests.support.captioned_sets import COUNT, caption, write_hierarchies, write_pairs
from tests.support.datacomp_sets import write_open_clip
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.datasets.data_set import open_dataset
from prolip.embeddings.embed import embed_shards
from prolip.inference.load_model import load


class CaptionedWorld:
    def __init__(self, root):
        self.root = root
        self.pairs, self.hierarchies = root / "wds_pairs_test", root / "hierarchies"
        write_pairs(self.pairs)
        write_hierarchies(self.hierarchies)
        write_run(root / "run", root / "tokenizer.json", context_length=8)
        self.ours, self.theirs = str(root / "run"), write_open_clip(root / "clip")
        self.model = load(self.ours, device="cpu")

    def run(self, suite, *words, models=None):
        """The figures of our model and of open_clip's, by task and metric."""
        out = self.root / suite
        names = models if models is not None else [self.ours, self.theirs]
        given = [word for name in names for word in ("--checkpoint", name)]
        assert main(["eval", suite, *given, "--out", str(out), "--num_resamples", "10", *words]) == 0
        found = json.loads((out / "results.json").read_text())
        assert (out / "results.md").read_text()
        assert "</html>" in (out / "results.html").read_text()
        return found


def embedded(model, folder):
    images = embed_shards(model, open_dataset(str(folder)).shards).gaussian
    texts = model.encoder.embed_captions([caption(number, place) for number in range(COUNT) for place in range(3)])
    return images, texts, torch.arange(COUNT).repeat_interleave(3)


def evaluate(suite, source, out, *words):
    assert main(["eval", suite, "--checkpoint", source, "--out", str(out), "--num_resamples", "0", *words]) == 0
    return json.loads((out / "results.json").read_text())


def mean_ranks(values):
    return torch.tensor([float((values < value).sum()) + float((values == value).sum()) / 2 for value in values])
