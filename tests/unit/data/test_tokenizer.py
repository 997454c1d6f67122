"""prolip.data.tokenizer: settings, errors that name the field or the file, and threads. The ids are tests/parity's."""

import gzip
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.support.refusals import refusal_of

from prolip import _core
from prolip.build.vocabulary import train_vocabulary
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer

MERGES = b"#version\nc a\nca t</w>\n"
CAT, START, END = 513, 514, 515


@pytest.fixture
def merges(tmp_path):
    path = tmp_path / "merges.txt"
    path.write_bytes(MERGES)
    return path


def test_clip_with_a_file_of_merges_gives_the_expected_ids(merges):
    tokenizer = Tokenizer(TokenizerConfig(kind="clip", path=merges, context_length=5))
    ids = tokenizer.encode(["Cat  cat", "", "cat cat cat cat"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [[START, CAT, CAT, END, 0], [START, END, 0, 0, 0], [START, CAT, CAT, CAT, END]]
    assert (tokenizer.pad_id, tokenizer.vocab_size, tokenizer.context_length) == (0, 516, 5)
    assert tokenizer.encode([]).shape == (0, 5)


def test_a_vocabulary_of_captions_names_the_words_that_it_spells(tmp_path, merges):
    path = tmp_path / "tokenizer.json"
    path.write_text(train_vocabulary(["a t shirt, blue", "a photo of a t shirt, blue"], 200).json)
    tokenizer = Tokenizer(TokenizerConfig(kind="file", path=path))
    assert tokenizer.unknown_words(["a red  shirt", "Blue", "photo, red", "rot"]) == ["red", "photo", "rot"]
    assert Tokenizer(TokenizerConfig(kind="clip", path=merges)).unknown_words(["zebra"]) == []


def test_clips_tokenizer_does_not_import_torch():
    program = (
        "import sys; from prolip.data.tokenizer import *; Tokenizer(TokenizerConfig()).encode(['caf\\u00e9']);"
        "print(sorted({'torch', 'open_clip'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"context_length": 0}, "tokenizer.context_length"),
        ({"context_length": 2}, "tokenizer.context_length"),
        ({"pad_id": -1}, "tokenizer.pad_id"),
        ({"pad_id": 5}, "tokenizer.pad_id"),
        ({"clean": "none"}, "tokenizer.clean"),
        ({"kind": "file"}, "tokenizer.path"),
        ({"kind": "file", "path": Path("nowhere.json")}, "tokenizer nowhere.json"),
    ],
)
def test_wrong_settings_name_the_field(settings, field):
    with refusal_of(field):
        Tokenizer(TokenizerConfig(**settings))


@pytest.mark.parametrize("content", [gzip.compress(MERGES, mtime=0)[:-9], b"cat"])
def test_damaged_merges_are_named(tmp_path, content):
    path = tmp_path / "cut.txt.gz"
    path.write_bytes(content)
    with refusal_of(f"tokenizer {path}"):
        Tokenizer(TokenizerConfig(path=path))


def test_cleaning_captions_lets_other_threads_run():
    # The cleaner waits for another Python thread: with the interpreter held by `encode` this would never end.
    cleaning, go_on = threading.Event(), threading.Event()

    def clean(captions):
        cleaning.set()
        assert go_on.wait(timeout=20)
        return captions

    core = _core.Tokenizer.clip(MERGES, 6, clean)
    worker = threading.Thread(target=core.encode, args=(["é"],))
    worker.start()
    assert cleaning.wait(timeout=20)
    # A second batch passes while the first one waits: no lock is held over the call.
    assert core.encode(["cat"])[0, 1] == CAT
    go_on.set()
    worker.join(timeout=20)
    assert not worker.is_alive()
