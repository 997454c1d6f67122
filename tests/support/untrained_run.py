"""A run of a tiny untrained model, for tests that need any run."""

import dataclasses

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from prolip.checkpoint import Notes, Saver, checkpoint_path, run_tensors
from prolip.data.config import TokenizerConfig
from prolip.distributed import Ranks
from prolip.inference.tokenizer import inference_files
from prolip.models import ARCHITECTURES, ProLIP
from prolip.models.official_json import to_official_json
from prolip.train.config import TrainConfig, to_toml

ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
WORDS = ["<pad>", "a", "an", "picture", "emoji", "of", ":", ",", "-", "and", "animals", "nature", "food", "travel"]


def write_run(run, tokenizer, context_length, image_seq_len=None):
    """Writes a checkpoint into a run's folder, and the tokenizer that it was, so to say, trained with."""
    write_words(tokenizer)
    write_run_with(run, tokenizer, context_length, image_seq_len=image_seq_len)


def write_words(tokenizer):
    """Writes a tokenizer of a few words."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tokenizer))


def write_run_with(run, tokenizer, context_length, seed=0, image_seq_len=None):
    """Writes a checkpoint into a run's folder, of a model for a tokenizer that is there."""
    num_tokens = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    demo = ARCHITECTURES["demo"]
    config = dataclasses.replace(
        demo,
        embed_dim=32,
        # Of variances that differ visibly between items.
        vision=dataclasses.replace(
            demo.vision, width=32, head_width=16, layers=1, init_unc_bias=-6.0, image_seq_len=image_seq_len
        ),
        text=dataclasses.replace(
            demo.text,
            width=32,
            heads=2,
            layers=1,
            vocab_size=num_tokens,
            context_length=context_length,
            init_unc_bias=-6.0,
        ),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ProLIP(config)
    base = TrainConfig()
    trained = dataclasses.replace(
        base,
        samples_seen=512,
        architecture="demo",
        model=config,
        data=dataclasses.replace(
            base.data,
            shards=("x.tar",),
            tokenizer=TokenizerConfig(kind="file", path=tokenizer, context_length=context_length, pad_id=0),
            mask=dataclasses.replace(base.data.mask, mask_id=1),
        ),
    )
    write_checkpoint(run / "checkpoints", model, to_toml(trained), step=1, trained=trained)


def write_checkpoint(folder, model, config, *, step, elapsed_s=0.0, average=None, trained=None):
    """Writes a checkpoint of a model that was, so to say, trained by a configuration; its path."""
    notes = Notes(
        step=step,
        world_size=1,
        elapsed_s=elapsed_s,
        cursor={"epoch": 0, "legs": []},
        config=config,
        model_config=to_official_json(model.config),
        samples=0 if trained is None else step * trained.batch_size,
        keep_ratio=None if trained is None else trained.data.mask.keep_ratio,
    )
    preprocessing = None if trained is None else inference_files(trained.data.tokenizer, model.config)
    with Saver(folder, ALONE, keep=9, after=step - 1, preprocessing=preprocessing) as saver:
        saver.save(notes, run_tensors(model, torch.optim.AdamW(model.parameters()), average))
    return checkpoint_path(folder, step)
