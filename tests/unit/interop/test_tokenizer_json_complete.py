"""The complete tokenizer.json gives the loader's ids in the `tokenizers` package: cleaned, cut and padded."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from prolip.data import tokenizer as prolip_tokenizer
from prolip.data.config import TokenizerConfig
from prolip.interop.tokenizer_json import complete_tokenizer

CAPTIONS = [
    "",
    "a",
    "  A  photo\tof\n two   CAFÉS ",
    "state-of-the-art_dogs, REALLY!?",
    "it's the dog's (3.14) [x]{y} a^b `c` |~ <d> \\ @ #e $5 50%",
    "Ελλάδα, ÅNGSTRÖM, 東京 and 😀",
    "a very long caption " * 30,
]


def file_tokenizer(folder, *, post, settings):
    """A byte-level tokenizer with a normaliser of its own, as a file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    if post:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder / "tokenizer.json"


def assert_same_rows(config, folder):
    complete_tokenizer(config).save(str(folder / "complete.json"))
    reopened = Tokenizer.from_file(str(folder / "complete.json"))
    found = np.array([encoding.ids for encoding in reopened.encode_batch(CAPTIONS)])
    assert (found == prolip_tokenizer.Tokenizer(config).encode(CAPTIONS)).all()


@pytest.mark.parametrize("clean", [None, "whitespace"])
def test_the_tokenizer_json_for_clip_gives_our_token_ids(tmp_path, clean):
    assert_same_rows(TokenizerConfig(kind="clip", context_length=32, clean=clean), tmp_path)


@pytest.mark.parametrize("settings", [{}, {"padding_side": "left", "truncation_side": "left", "pad_token": "</s>"}])
@pytest.mark.parametrize("clean", [None, "lower", "whitespace", "canonicalize"])
def test_the_tokenizer_json_for_a_file_tokenizer_gives_our_token_ids(tmp_path, clean, settings):
    path = file_tokenizer(tmp_path, post=not settings, settings=settings)
    assert_same_rows(TokenizerConfig(kind="file", path=path, context_length=24, clean=clean), tmp_path)
