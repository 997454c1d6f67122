"""The vocabulary of captions: its size, its special tokens, all of ASCII, and the same file in every process."""

import os
import subprocess
import sys

from prolip.build.emoji.captions import captions_by_level
from prolip.build.emoji.names import read_table
from prolip.build.vocabulary import PAD, UNKNOWN, train_vocabulary
from prolip.data.tokenizer import MASK

CAPTIONS = [
    caption for one in read_table()[:300] for caption in captions_by_level(one.name, one.subgroup, one.group)["name"]
]


def test_a_vocabulary_has_its_size_special_tokens_and_words():
    vocabulary = train_vocabulary(CAPTIONS, 600)
    tokenizer = vocabulary.tokenizer
    assert vocabulary.size == 600 == tokenizer.get_vocab_size()
    assert (vocabulary.pad_id, tokenizer.token_to_id(PAD)) == (0, 0)
    assert vocabulary.mask_id == tokenizer.token_to_id(MASK)
    assert tokenizer.encode("Grinning  FACE, smileys").tokens[1:3] == ["▁face", "▁,"]
    assert tokenizer.encode("").ids == []


def test_all_of_ascii_can_be_spelled_and_accents_fall_away():
    tokenizer = train_vocabulary(["a small corpus"] * 3, 300).tokenizer
    visible = " ".join(chr(code) + chr(code) for code in range(33, 127))
    assert UNKNOWN not in tokenizer.encode(visible).tokens
    assert tokenizer.encode("Ñandú’s").ids == tokenizer.encode("nandu's").ids
    assert UNKNOWN in tokenizer.encode("猫").tokens


def test_a_word_and_the_end_of_a_word_differ():
    tokenizer = train_vocabulary(["fish", "blowfish"] * 50, 90).tokenizer
    assert tokenizer.encode("fish").tokens == ["▁fish"]
    assert "▁fish" not in tokenizer.encode("blowfish").tokens


def test_the_tokenizer_file_is_the_same_in_another_process(tmp_path):
    """Another hash seed and another number of threads: nothing of them may reach the file."""
    script = (
        "import sys; from prolip.build.vocabulary import train_vocabulary;"
        "sys.stdout.write(train_vocabulary(open(sys.argv[1], encoding='utf-8').read().splitlines(), 600).json)"
    )
    source = tmp_path / "captions"
    source.write_text("\n".join(CAPTIONS), encoding="utf-8")
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", script, str(source)]
    other = subprocess.run(command, capture_output=True, check=True, env=environment, encoding="utf-8").stdout
    assert other == train_vocabulary(CAPTIONS, 600).json
