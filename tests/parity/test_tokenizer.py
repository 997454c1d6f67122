"""Token ids equal the reference's: open_clip's SimpleTokenizer, and the `tokenizers` package for any tokenizer.json."""

import csv
import html.entities
import random
import sys
import unicodedata

import numpy as np
import pytest
import tokenizers
from open_clip import SimpleTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer, clip_vocabulary

# Longer than CLIP's 77, so that truncation hides little; 77 has its own test.
LENGTH = 160

# fmt: off
WORDS = [
    "a", "an", "the", "photo", "picture", "of", "on", "in", "with", "two", "three", "man", "woman", "child", "dog",
    "cat", "horse", "surfboard", "kitchen", "street", "sign", "tennis", "player", "riding", "wave", "black", "white",
    "red", "umbrella", "TOP", "Large", "COFFEE", "cup's", "dogs'", "o'clock", "don't", "I'm", "we'll", "they've",
    "she'd", "isn't", "'twas", "rock'n'roll", "YOU'RE", "'S", "'LL", "state-of-the-art", "e.g.", "i.e.", "café",
    "naïve", "Zürich", "smörgåsbord", "ÅNGSTRÖM", "Ελλάδα", "ΟΔΟΣ", "ΣΑΣ", "ὈΔΥΣΣΕΎΣ", "Москва", "ЁЛКА", "İstanbul",
    "ışık", "straße", "ﬁnal", "ﬂower", "Ǆ", "ǅ", "ǆ", "東京", "日本語", "中文字幕", "한국어", "العربية", "עברית",
    "हिन्दी", "ไทย",
    "𝒞𝓁𝒾𝓅", "ＦＵＬＬｗｉｄｔｈ", "ｶﾀｶﾅ", "supercalifragilisticexpialidocious", "aaaaaaaaaaaa", "zzzzzz",
    "http://example.com/a?b=c&d=e", "user@example.org", "#hashtag", "@name",
]

FRAGMENTS = [
    "1", "42", "3.14", "1,000", "50%", "$9.99", "½", "²", "Ⅻ", "①", "٣", "४५", "1st", "2nd", "007",
    ".", ",", "!", "?", "...", "…", "--", "—", "–", ":", ";", "(", ")", "[x]", "{y}", '"', "'", "''", "`", "*", "/",
    "\\", "_", "|", "~", "&", "& ", " &", "&&", "&amp;", "&amp", "&amp;amp;", "&amp;amp;lt;", "&lt;b&gt;", "&quot;",
    "&#39;", "&#x27;", "&#8217;", "&nbsp;", "&eacute;", "&EACUTE;", "&copy", "&notit;", "&bogus;", "&#0;", "&#28;",
    "&#128;", "&#xD800;", "&#1114112;", "&;", "& amp;", "<br>", "<b>",
    "â€œ", "â€\x9d", "â€™", "Ã©", "Ã¨", "Ã¼", "Â£", "Â", "ï»¿", "ðŸ˜€", "Ã¢â‚¬â„¢", "Ð¿Ñ€", "schÃ¶n", "\x80\x93",
    "\x91q\x92", "“quoted”", "‘single’", "it’s", "we’re", "«guillemets»", "„low“", "′", "″", "´",
    "e\u0301", "A\u030a", "o\u0308", "\u0301", "\u0345", "α\u0345", "\u0345a", "ᾳ", "ᾼ", "ſ", "'ſ", "ſt", "ﬅ",
    "\u212a", "\u212b", "ẞ", "ŉ", "ΐ", "😀", "👍🏽", "👩‍👩‍👧", "🇩🇪", "❤️", "☃", "✈", "🧑‍🎨", "𐐀", "𐐨", "🂡",
    "\ufffc", "\ufffd", " ", "  ", "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0",
    "\u1680", "\u2003", "\u2028", "\u3000", "\u200b", "\ufeff", "\u180e", "\u2060", "\u200d", "\xad",
    "\x00", "\x01", "\x07", "\x1b[31m", "\x1b", "\x7f", "\x9f", "\u202e", "\ue000",
    "<start_of_text>", "<end_of_text>", "<START_OF_TEXT>", "<end_of_textx", "<ſtart_of_text>", "<start_of_text",
    "</w>", "a</w>",
]
# fmt: on


def _captions(count, seed):
    """Captions from plain to adversarial: whole words, glued fragments, random characters, very long ones."""
    draw = random.Random(seed)
    entities = sorted(html.entities.html5)
    for number in range(count):
        kind = number % 8
        if kind <= 2:
            yield " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 14))) + draw.choice(["", ".", "!", " ."])
        elif kind == 3:
            yield "".join(draw.choice(FRAGMENTS) for _ in range(draw.randint(0, 12)))
        elif kind == 4:
            yield draw.choice(["", " "]).join(draw.choice((WORDS, FRAGMENTS)[draw.random() < 0.4]) for _ in range(12))
        elif kind == 5:
            yield "".join(chr(draw.randint(0x09, 0x7E)) for _ in range(draw.randint(0, 60)))
        elif kind == 6:
            top = draw.choice([0x180, 0x600, 0x3000, 0xD7FF, 0x1FFFF])
            letters = [chr(draw.randint(1, top)) for _ in range(draw.randint(0, 25))]
            yield "".join(letter for letter in letters if not 0xD800 <= ord(letter) <= 0xDFFF)
        else:
            yield (
                "see &" + draw.choice(entities) + draw.choice(["", ";", " "]) + draw.choice(WORDS) * draw.randint(1, 40)
            )


def _differences(captions, ours, theirs):
    found = np.any(ours.encode(captions) != theirs(captions).numpy(), axis=1)
    return [ascii(captions[row]) for row in np.flatnonzero(found)]


@pytest.fixture(scope="module")
def reference():
    return SimpleTokenizer(context_length=LENGTH)


@pytest.fixture(scope="module")
def clip():
    return Tokenizer(TokenizerConfig(kind="clip", context_length=LENGTH))


def test_clip_ids_of_12000_random_captions_equal_open_clips(clip, reference):
    captions = list(_captions(12_000, seed=2410_18857))
    assert len(set(captions)) > 10_000
    assert _differences(captions, clip, reference) == []


def test_rows_are_padded_and_truncated_to_77_as_in_open_clip(reference):
    ours = Tokenizer(TokenizerConfig(kind="clip", context_length=77))
    captions = ["a dog " * count for count in range(34, 42)] + [
        "x" * 3000,
        "日本" * 300,
        "!" * 500,
        "1 " * 75,
        "1 " * 76,
        "",
    ]
    assert np.array_equal(ours.encode(captions), reference(captions, context_length=77).numpy())
    assert (ours.vocab_size, ours.pad_id, ours.context_length) == (reference.vocab_size, 0, 77)


def test_clip_ids_of_every_pair_of_ascii_characters_equal_open_clips(clip, reference):
    ascii_letters = [chr(code) for code in range(128)]
    pairs = [f"x{first}{second}" for first in ascii_letters for second in ascii_letters]
    captions = ["".join(pairs[at : at + 16]) for at in range(0, len(pairs), 16)]
    assert _differences(captions, clip, reference) == []


def test_clip_ids_of_sampled_unicode_characters_equal_open_clips(clip, reference):
    # Assigned to Python's own, older Unicode: what a character that was added since then is, each package knows or not.
    assigned = [chr(code) for code in range(128, sys.maxunicode) if unicodedata.category(chr(code)) not in {"Cn", "Cs"}]
    sample = random.Random(7).sample(assigned, 12_000)
    captions = ["".join(f"a{letter}1 " for letter in sample[at : at + 12]) for at in range(0, len(sample), 12)]
    assert _differences(captions, clip, reference) == []


def test_clip_vocabulary_and_merges_equal_open_clips(reference):
    symbols, merges = clip_vocabulary()
    assert symbols[-2:] == ["<start_of_text>", "<end_of_text>"]
    assert {symbol: id for id, symbol in enumerate(symbols)} == reference.encoder
    assert {merge: rank for rank, merge in enumerate(merges)} == reference.bpe_ranks


def test_decoded_text_equals_open_clips(clip, reference):
    captions = [*_captions(300, seed=3), "", "日本 語", "caf\u00e9 \x80 ok"]
    special = {reference.sot_token_id, reference.eot_token_id, 0}
    rows = clip.encode(captions).tolist()
    expected = [reference.decode([id for id in row if id not in special]).strip() for row in rows]
    assert clip.decode(rows) == expected


def test_clip_ids_of_lone_surrogates_equal_open_clips(clip, reference):
    assert _differences(["a \ud800 b", "\udfff", "\ud83d\ude00 pair"], clip, reference) == []


def test_clip_ids_of_hierarcaps_captions_equal_open_clips(clip, reference, shared):
    source = shared / "hierarcaps_test.csv"
    if not source.is_file():
        pytest.skip(f"the shared folder has no {source.name}")
    with source.open(encoding="utf-8", newline="") as stream:
        captions = [level for row in csv.DictReader(stream) for level in row["captions"].split(" => ")]
    assert len(captions) == 4000
    assert _differences(captions, clip, reference) == []


# --- any tokenizer.json ---

CORPUS = [caption for caption in _captions(1600, seed=5) if caption.isprintable()]


def _byte_level():
    """As GPT-2's and RoBERTa's: its expression looks ahead, which not every engine can."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=["<s>", "<pad>", "</s>"], show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return made


def _word_piece():
    """As BERT's."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def _unigram():
    """As T5's and SigLIP's: pieces with probabilities, blanks marked, an end token alone."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator([caption for caption in CORPUS if caption.isascii()], trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", pair=None, special_tokens=[("</s>", 1)])
    return made


def _small_bpe():
    """As the emoji shards': lower case, cut at white space and signs, nothing added."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Split(
        tokenizers.Regex(r"'(?:s|t)(?!\p{L})|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", invert=True
    )
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<pad>", "[UNK]", "[MASK]"], show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


@pytest.mark.parametrize("make", [_byte_level, _word_piece, _unigram, _small_bpe])
@pytest.mark.parametrize("length", [7, 48])
def test_a_tokenizer_json_gives_the_ids_of_the_tokenizers_package(make, length, tmp_path):
    path = tmp_path / "tokenizer.json"
    make().save(str(path))
    # Read back, because a file rounds the scores of pieces: fresh from training some ties break another way.
    theirs = tokenizers.Tokenizer.from_file(str(path))
    ours = Tokenizer(TokenizerConfig(kind="file", path=path, context_length=length))
    pad = next(token for token in ("<pad>", "[PAD]") if theirs.token_to_id(token) is not None)
    theirs.enable_truncation(length)
    theirs.enable_padding(length=length, pad_id=theirs.token_to_id(pad), pad_token=pad)
    captions = list(_captions(2400, seed=11))
    expected = np.array([encoding.ids for encoding in theirs.encode_batch(captions)])
    assert np.array_equal(ours.encode(captions), expected)
    assert ours.pad_id == theirs.token_to_id(pad)
    assert ours.vocab_size == theirs.get_vocab_size()
