"""Train a small byte-pair tokenizer on captions."""

from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from prolip.data.tokenizer import MASK

PAD = "<pad>"
UNKNOWN = "[UNK]"
START_OF_WORD = "▁"
_ASCII = "".join(chr(code) for code in range(33, 127) if not chr(code).isupper())


class Vocabulary(NamedTuple):
    """A trained tokenizer."""

    tokenizer: Tokenizer
    pad_id: int
    mask_id: int
    size: int

    @property
    def json(self) -> str:
        """Content of tokenizer.json."""
        return self.tokenizer.to_str(pretty=True) + "\n"

    def count_tokens(self, captions: Iterable[str]) -> list[int]:
        """Of each caption."""
        return [len(encoding.ids) for encoding in self.tokenizer.encode_batch_fast(list(captions))]


def train_vocabulary(captions: Iterable[str], max_size: int) -> Vocabulary:
    """Train byte-pair encoding of lower-case words; `max_size` counts special tokens.

    Words start with a mark, so that "fish" in "blowfish" differs from the word "fish". Commas and colons are separate
    words. Accents are removed. A character that is neither ASCII nor in a caption becomes [UNK].
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Replace("’", "'")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(",", "isolated"),
            pre_tokenizers.Split(":", "isolated"),
            # The trainer's own marks (end_of_word_suffix) get ids in a hash map's order, which differs between
            # processes.
            pre_tokenizers.Metaspace(replacement=START_OF_WORD, prepend_scheme="always"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=max_size,
        min_frequency=2,
        special_tokens=[PAD, UNKNOWN, MASK],
        initial_alphabet=[START_OF_WORD, *_ASCII],
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    pad_id, mask_id = tokenizer.token_to_id(PAD), tokenizer.token_to_id(MASK)
    assert pad_id == 0, "special tokens come first"
    assert mask_id is not None, "it is a special token"
    return Vocabulary(tokenizer, pad_id, mask_id, tokenizer.get_vocab_size())
