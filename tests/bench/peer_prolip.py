#!/usr/bin/env python3
"""Our loader as one more peer of a comparison of loaders: one JSON line of the same form, for the same work.

The folder of the comparison brings `common.py`, which parses the flags and measures; `peers.sh` puts this file
beside it.
"""

from importlib import import_module

import torch

from prolip.data import AugmentConfig, BatchLoader, LoaderConfig
from prolip.data.config import TokenizerConfig
from prolip.data.device import device_batches


def main():
    common = import_module("common")
    flags = common.parse(variant="exact")
    full, plain = AugmentConfig(), AugmentConfig(jitter_prob=0.0, gray_prob=0.0)
    # An epoch of a few batches at least, where the shards are few: the stream is endless.
    times = -(-4 * flags.batch_size // flags.samples)
    config = LoaderConfig(
        shards=tuple(flags.paths) * times,
        batch_size=flags.batch_size,
        image_size=common.SIZE,
        augment=full if flags.recipe == "full" else plain,
        tokenizer=TokenizerConfig(context_length=77),
        num_epochs=None,
        num_threads=flags.workers,
    )

    def batches():
        for batch in device_batches(BatchLoader(config), torch.device("cpu")):
            yield batch.images, batch.token_ids[0].long()

    common.measure("0 prolip", flags, batches(), versions=f"torch {torch.__version__}")


if __name__ == "__main__":
    main()
