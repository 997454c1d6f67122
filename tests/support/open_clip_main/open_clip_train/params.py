"""Flags of the command. A manifest of several sets of shards, given as the training data, becomes lists here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from braceexpand import braceexpand


def parse_args(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--train-data", "--train-data-upsampling-factors", "--val-data", "--resume", "--json-text-key"):
        parser.add_argument(name)
    for name, default in (("--name", "run"), ("--logs", "logs"), ("--model", ""), ("--text-key", "txt")):
        parser.add_argument(name, default=default)
    parser.add_argument("--image-key", default="jpg;png;jpeg;webp")
    parser.add_argument("--dataset-type", choices=("webdataset", "webdataset-audio", "csv", "auto"), default="auto")
    for name, number in (("--batch-size", 64), ("--epochs", 32), ("--workers", 4), ("--accum-freq", 1), ("--seed", 0)):
        parser.add_argument(name, type=int, default=number)
    parser.add_argument("--train-num-samples", type=int)
    parser.add_argument("--precision", default="amp_bf16")
    parser.add_argument("--device", default="cuda")
    for name in ("--dataset-resampled", "--use-naflex", "--length-bucketing"):
        parser.add_argument(name, action="store_true")
    args = parser.parse_args(list(words))
    args.rank, args.local_rank, args.world_size, args.distributed = 0, 0, 1, False
    if args.train_data and args.train_data.endswith(".json"):
        _expand_manifest(args)
    return args


def _expand_manifest(args: argparse.Namespace) -> None:
    """Shards one by one, a weight for each if shards are resampled, and the number of samples."""
    sources = json.loads(Path(args.train_data).read_text())["sources"]
    shards = [list(braceexpand(source["shards"])) for source in sources]
    args.train_data = [shard for some in shards for shard in some]
    args.train_num_samples = args.train_num_samples or sum(source["samples"] for source in sources)
    if args.dataset_resampled:
        weights = [source.get("sampling_weight", 1.0) for source in sources]
        args.train_data_upsampling_factors = [
            weight for weight, some in zip(weights, shards, strict=True) for _ in some
        ]
