"""Cleaning equals open_clip's: which captions need none of ftfy, and ids of its tokenizers with each `clean`."""

import json
from functools import cache
from typing import Literal

import ftfy
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from open_clip import SimpleTokenizer
from open_clip.tokenizer import HFTokenizer, basic_clean, canonicalize_text, get_clean_fn
from tests.parity.test_tokenizer import _byte_level, _captions, _small_bpe, _unigram, _word_piece

from prolip.data.cleaning import clean_canonicalize, clean_lower, clean_whitespace
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer

Clean = Literal["lower", "whitespace", "canonicalize"]
CLEANS = ("lower", "whitespace", "canonicalize")
PLAIN = [chr(code) for code in range(32, 127)] + ["\t", "\n", "\r"]
MOSTLY_PLAIN = st.text(st.sampled_from([*PLAIN, *"&&&;#aé’\xa0Ã_ſİΣ\u2028"]), max_size=40)


def _every_triple(letters):
    """A text in which each three of the letters follow one another: a de Bruijn sequence."""
    count, place, words = len(letters), [0] * 4, []

    def extend(length, period):
        if length > 3:
            if 3 % period == 0:
                words.extend(place[1 : period + 1])
            return
        place[length] = place[length - period]
        extend(length + 1, period)
        for letter in range(place[length - period] + 1, count):
            place[length] = letter
            extend(length + 1, length)

    extend(1, 1)
    return "".join(letters[number] for number in [*words, *words[:2]])


def test_ftfy_and_entities_leave_plain_ascii_alone():
    """Every three plain characters one after another, `&` before a space only: nothing but line ends changes."""
    text = _every_triple([letter for letter in PLAIN if letter not in "&\n\r"])
    assert len(text) > 95**3
    assert ftfy.fix_text(text) == text == basic_clean(f".{text}.")[1:-1]
    text = _every_triple(["&", " ", "a", ";", "#", "<"]).replace("&", "& ")
    assert basic_clean(text) == text.strip()
    # Line ends become line feeds: white space all the same.
    text = _every_triple(["\r", "\n", " ", "a", "&"]).replace("&", "& ")
    assert basic_clean(text).split() == text.split()


@settings(max_examples=400)
@given(captions=st.lists(MOSTLY_PLAIN | st.text(max_size=30), max_size=6))
@example(captions=["_", " _ ", "ΟΔΟΣ_", "voilÃ ", "voilÃ\xa0"])
def test_captions_are_cleaned_as_in_open_clip(captions):
    for clean, ours in zip(CLEANS, (clean_lower, clean_whitespace, clean_canonicalize), strict=True):
        theirs = get_clean_fn(clean)
        assert ours(captions) == [theirs(caption) for caption in captions]
    assert clean_canonicalize(captions) == [canonicalize_text(basic_clean(caption)) for caption in captions]


@pytest.mark.parametrize("clean", CLEANS)
def test_clip_ids_equal_open_clips_with_each_cleaning(clean):
    ours = Tokenizer(TokenizerConfig(context_length=90, clean=clean))
    theirs = SimpleTokenizer(context_length=90, clean=clean)
    captions = [*_captions(1600, seed=31), "'S'T'RE'VE'M'LL'D", "<Start_Of_Text>", "<ſTART_OF_TEXT>a", "'ſX", "A_B_"]
    differ = np.any(ours.encode(captions) != theirs(captions).numpy(), axis=1)
    assert [captions[row] for row in np.flatnonzero(differ)] == []


@settings(max_examples=150)
@given(captions=st.lists(MOSTLY_PLAIN | st.text(max_size=60), min_size=1, max_size=8), clean=st.sampled_from(CLEANS))
def test_clip_ids_of_any_text_equal_open_clips_with_each_cleaning(captions, clean):
    ours, theirs = _clips(clean)
    assert np.array_equal(ours.encode(captions), theirs(captions).numpy())


@cache
def _clips(clean):
    ours = Tokenizer(TokenizerConfig(context_length=50, clean=clean))
    return ours, SimpleTokenizer(context_length=50, clean=clean)


def _pair(make, folder, clean, length, config):
    """Our tokenizer of a file and open_clip's of its folder."""
    make().save(str(folder / "tokenizer.json"))
    written = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(written), encoding="utf-8")
    ours = TokenizerConfig(kind="file", path=folder / "tokenizer.json", context_length=length, clean=clean)
    return Tokenizer(ours), HFTokenizer(str(folder), context_length=length, clean=clean)


FILES = {
    "siglip": (_unigram, {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "bert": (_word_piece, {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}),
    "roberta": (_byte_level, {"pad_token": "<pad>", "padding_side": "left", "truncation_side": "left"}),
    "small": (_small_bpe, {"pad_token": {"__type": "AddedToken", "content": "<pad>", "special": True}}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("clean", CLEANS)
def test_tokenizer_file_ids_equal_those_of_open_clips_hf_tokenizer(name, clean, tmp_path):
    """Ids, cut and padded: SigLIP's pad with `</s>`, which only `tokenizer_config.json` says."""
    pytest.importorskip("transformers")
    make, config = FILES[name]
    for length in (6, 40):
        ours, theirs = _pair(make, tmp_path, clean, length, config)
        captions = [*_captions(320, seed=length), "", " ", "_", "A photo_of a CAT, & a dog!"]
        expected = theirs(captions).numpy()
        assert expected.shape == (len(captions), length)
        differ = np.any(ours.encode(captions) != expected, axis=1)
        assert [captions[row] for row in np.flatnonzero(differ)] == []
        assert ours.pad_id == theirs.tokenizer.pad_token_id
