"""Names of options and commands from other programs and from our old versions, and what to write instead.

A word that is in no table gets a suggestion only if it resembles one of ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from prolip.errors import UserError

_ALIKE = 0.75
"""Lowest similarity, from 0 to 1, at which a word counts as mistyped. nproc and wandb_project are less similar."""
_IN_TRAINING = re.compile(r"(?<![\w./\\-])data\.(?=(?:shards|store)\b)")
"""A setting of the loader, and not the part of a path that looks like one."""
_FILES = "--shards for shards, --images for folders of images"
_TORCHRUN = "torchrun --nproc-per-node N -m prolip.train ..."
_SAMPLES = "--samples_seen, the samples of the whole run with repetitions"
_OUT = "--out, the run's folder"
_KEY = "--data.captions.0.sources.0.key"

_MODEL = {
    "--cpu": "--device cpu",
    "--cuda": "--device cuda",
    "--gpu": "--device cuda",
    "--model": "--checkpoint",
    "--pretrained": "--checkpoint open_clip:NAME/TAG",
}
_PRECISION = {"--amp": "--precision bf16", "--bf16": "--precision bf16", "--fp16": "--precision fp16"}

OPTIONS: dict[str, dict[str, str]] = {
    "adapt": {
        "--batch_size": "--heads.batch_size",
        "--data": "--embeddings",
        "--lr": "--heads.lr",
        "--model": "--checkpoint",
        "--pairs": "--embeddings",
        "--steps": "--heads.steps",
    },
    "bench data": {"--data": "--shards", "--images": "--num_images", "--num_threads": "--threads"},
    "bprw": {**_MODEL, "--data": "--shards", "--images": "--shards"},
    "calibrate": {**_MODEL, **_PRECISION, "--images": "--data", "--shards": "--data"},
    "classify": {
        **_MODEL,
        **_PRECISION,
        "--image": "the image without an option: prolip classify IMAGE LABEL ...",
        "--labels": "the labels without an option: prolip classify IMAGE LABEL ...",
    },
    "compare": {
        **_MODEL,
        **_PRECISION,
        "--image": "the image without an option: prolip compare IMAGE TEXT ...",
        "--text": "the texts without an option: prolip compare IMAGE TEXT ...",
    },
    "data build csv": {"--source": "--table", "--csv": "--table"},
    "data build folder": {"--source": "--images", "--folder": "--images", "--data": "--images"},
    "data filter": {"--data": "--shards"},
    "data index": {"SHARD": "--shards SHARD ...", "--data": "--shards", "--num_threads": "--threads"},
    "data rank": {"--by caption": "--by text"},
    "demo": {"--name": "--out", "--run_dir": "--out"},
    "embed": {
        **_MODEL,
        **_PRECISION,
        "--data": _FILES,
        "--num_threads": "--threads",
        "--num_workers": "--threads",
        "--output": "--out",
        "--source": _FILES,
        "--workers": "--threads",
    },
    "explore": {**_MODEL, "--caption_keys": "--caption_key", "--data": "--shards"},
    "export": {
        "--checkpoint": "the model without an option: prolip export CHECKPOINT --out FOLDER",
        "--data": "--trained_on",
        "--source": "the model without an option: prolip export CHECKPOINT --out FOLDER",
    },
    "runs": {"--format json": "--json"},
    "search": {**_MODEL, "--json FILE": "--json > FILE"},
    "train": {
        # Old names, and names from our other commands.
        "--name": "--out runs/NAME",
        "--run_dir": "--out",
        "--validation.jobs.N.classes": "--validation.jobs.N.classnames",
        "--validation.jobs.N.label": "--validation.jobs.N.class_key",
        "--caption_key": _KEY,
        "--checkpoint": "--start_from, or --resume for a run's own checkpoint",
        "--data": "--shards",
        "--data.threads": "--threads",
        "--images": "--shards; prolip data build makes shards of images",
        "--num_threads": "--threads",
        "--tokenizer": "--data.tokenizer.path",
        # Names from open_clip, transformers, lightning and torchrun.
        "--accum_freq": "--accumulate",
        "--beta1": "--optim.betas",
        "--beta2": "--optim.betas",
        "--betas": "--optim.betas",
        "--clip_grad": "--optim.clip_norm",
        "--context_length": "--data.tokenizer.context_length",
        "--csv_caption_key": _KEY,
        "--dataset_resampled": "--data.mode resampled",
        "--devices": _TORCHRUN,
        "--ema_decay": "--ema.decay",
        "--epochs": _SAMPLES,
        "--eps": "--optim.eps",
        "--fp16": "--precision fp16",
        "--bf16": "--precision bf16",
        "--gpus": f"{_TORCHRUN}; --gpus belongs to --dry-run",
        "--grad_checkpointing": "--parallel.recompute_every 1",
        "--grad_clip_norm": "--optim.clip_norm",
        "--gradient_accumulation_steps": "--accumulate",
        "--gradient_checkpointing": "--parallel.recompute_every 1",
        "--image_size": "--model.vision.image_size",
        "--learning_rate": "--optim.lr",
        "--lock_image": "--lock.image",
        "--lock_text": "--lock.text",
        "--log_dir": _OUT,
        "--logging_steps": "--log_every",
        "--logs": _OUT,
        "--lr": "--optim.lr",
        "--lr_scheduler": "--optim.schedule",
        "--lr_scheduler_type": "--optim.schedule",
        "--max_epochs": _SAMPLES,
        "--max_grad_norm": "--optim.clip_norm",
        "--max_steps": _SAMPLES,
        "--nnodes": "torchrun --nnodes N ... -m prolip.train ...",
        "--nproc": _TORCHRUN,
        "--nproc_per_node": _TORCHRUN,
        "--num_epochs": _SAMPLES,
        "--num_train_epochs": _SAMPLES,
        "--num_workers": "--threads",
        "--output": _OUT,
        "--output_dir": _OUT,
        "--per_device_train_batch_size": "--batch_size, the samples of a step over all processes",
        "--pretrained": "--start_from open_clip:NAME/TAG",
        "--save_frequency": "--checkpoint_every",
        "--save_steps": "--checkpoint_every",
        "--steps": _SAMPLES,
        "--torchcompile": "--parallel.compile True",
        "--train_data": "--shards",
        "--train_num_samples": "--data.num_samples",
        "--val_data": "[[validation.jobs]] with its shards into a recipe",
        "--vocab_size": "--model.text.vocab_size",
        "--wandb": "--log.wandb",
        "--wandb_project_name": "--log.wandb_project",
        "--warmup": "--optim.warmup_steps",
        "--warmup_steps": "--optim.warmup_steps",
        "--wd": "--optim.weight_decay",
        "--weight_decay": "--optim.weight_decay",
        "--workers": "--threads",
    },
    **{
        f"eval {suite}": {**_MODEL, **_PRECISION, "--images": "--data", "--shards": "--data"}
        for suite in (
            "datacomp",
            "decisions",
            "emoji",
            "hierarcaps",
            "hierarimgs",
            "imagenet",
            "retrieval",
            "uncertainty",
            "zero_shot",
        )
    },
}
"""For each command, wrong options and what to write instead. In a wrong option, a second word in capitals stands for
any value, `SHARD` for a word without an option before it, and N for a number in a key."""

COMMANDS: dict[str, dict[str, str]] = {
    "prolip": {
        "app": "explore",
        "benchmark": "bench",
        "build": "data build",
        "convert": "export",
        "encode": "embed",
        "evaluate": "eval",
        "extract": "embed",
        "filter": "data filter",
        "finetune": "train",
        "fine-tune": "train",
        "fit": "train",
        "index": "data index",
        "infer": "classify",
        "pack": "data build",
        "plot": "runs --plot FILE",
        "predict": "classify",
        "push": "export",
        "query": "search",
        "rank": "data rank",
        "reweight": "bprw",
        "retrieve": "search",
        "serve": "explore",
        "similarity": "compare",
        "test": "eval",
        "ui": "explore",
        "upload": "export",
        "zero-shot": "classify",
    },
    "prolip data build": {"images": "folder", "photos": "folder", "table": "csv", "tsv": "csv"},
    "prolip eval": {
        "classification": "zero_shot",
        "coco": "retrieval",
        "flickr": "retrieval",
        "folder": "zero_shot",
        "zero-shot": "zero_shot",
    },
}
"""For each program, wrong commands and what to write instead."""


def check_options(command: str, words: Sequence[str]) -> None:
    """Check that `OPTIONS` lists none of the words as wrong.

    Args:
        command: the command without `prolip`, such as "data index".
        words: the words after it.

    Raises:
        UserError: it lists one; the message says what to write instead.
    """
    table = OPTIONS.get(command, {})
    parts = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if "SHARD" in table and parts and not parts[0].startswith("-"):
        raise UserError(f"{parts[0]} needs an option before it: write {table['SHARD']}")
    for word, value in pairwise([*parts, "-"]):
        option = _option(word)
        any_value = [] if value.startswith("-") else [f"{option} FILE"]
        for known in (option, f"{option} {value}", *any_value):
            if option.startswith("--") and known in table:
                raise UserError(f"there is no {known}: write {table[known]}")


def _option(word: str) -> str:
    """Return an option as it is spelled in the tables, with underscores."""
    return f"--{word[2:].replace('-', '_')}" if word.startswith("--") else word


def without_section(text: str) -> str:
    """Return a message of the loader with its options as all commands but `prolip train` spell them.

    The loader names its settings as in a training run, where they are in the section `data`.
    """
    return _IN_TRAINING.sub("", text)


def other_key(command: str, key: str, *, in_file: bool) -> str | None:
    """Return what to write instead of a key; None if `OPTIONS` does not list it.

    Args:
        command: the command without `prolip`, such as "train".
        key: a dotted key of a recipe, or a flag without its dashes.
        in_file: the key comes from a file, so the answer has no dashes if it is a single flag.
    """
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", key)
    found = OPTIONS.get(command, {}).get(f"--{re.sub(r'(?<=[.])[0-9]+(?=[.])', 'N', key)}")
    if found is None:
        return None
    for number in numbers:
        found = found.replace(".N.", f".{number}.", 1)
    return found[2:] if in_file and re.fullmatch(r"--[\w.]+", found) else found


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word or dotted key that is most similar to `word`; None if none is similar enough.

    The last parts of the keys decide, since all keys of a table begin alike; whole keys only break ties.
    """
    last = word.rpartition(".")[2]
    scores: Mapping[str, float] = {
        key: difflib.SequenceMatcher(a=last, b=key.rpartition(".")[2]).ratio() for key in known
    }
    alike = [key for key, score in scores.items() if score >= _ALIKE]
    return max(
        alike, key=lambda key: (scores[key], difflib.SequenceMatcher(a=word, b=key).ratio(), -len(key)), default=None
    )
