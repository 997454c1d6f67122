"""Where captions come from: a member, or a field of a JSON member; and what is not a caption."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.shards import TOKENIZER, config, encoded, write_tar

from prolip.data import BatchLoader, CaptionConfig, CaptionSource
from prolip.data.tokenizer import Tokenizer

CLIP = Tokenizer(TOKENIZER)


def _load(
    folder: Path, texts: dict[str, dict[str, bytes]], source: CaptionSource, **changes: Any
) -> tuple[dict[str, list[int]], list[str]]:
    """The ids of each sample by its key, and the bad samples; `texts` has members by extension by key."""
    members = [
        (f"{key}.{extension}", data)
        for key, parts in texts.items()
        for extension, data in {"png": encoded((1, 2, 3)), **parts}.items()
    ]
    write_tar(folder / "texts.tar", members)
    settings = config(
        str(folder / "texts.tar"),
        captions=(CaptionConfig(sources=(source,)),),
        shuffle_window=0,
        last_batch="keep",
        max_bad_fraction=1.0,
        **changes,
    )
    ids = {}
    with BatchLoader(settings) as loader:
        for batch in loader:
            ids |= dict(zip(batch.keys, batch.token_ids[0].tolist(), strict=True))
        return ids, loader.stats().bad_samples


def _ids(text: str) -> list[int]:
    ids: list[int] = CLIP.encode([text])[0].tolist()
    return ids


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its shard open
def test_captions_that_are_not_utf8_are_bad_samples_as_in_webdataset(tmp_path: Path) -> None:
    captions = {
        "plain": b"a cat\n",
        "latin": b"caf\xe9",
        "utf16": "a cat".encode("utf-16"),
        "overlong": b"\xc0\x80",
        "surrogate": b"\xed\xa0\x80",
        "cut": "caf\xe9".encode()[:-1],
        "empty": b"",
        "mark": b"\xef\xbb\xbfa cat",
        "zero": b"a\x00cat\x1b[0m",
        "space": "voil\xc3\xa0".encode() + b"\n",
    }
    ids, bad = _load(tmp_path, {key: {"txt": data} for key, data in captions.items()}, CaptionSource())
    skipped: list[Exception] = []

    def skip(error: Exception) -> bool:
        skipped.append(error)
        return True

    theirs = webdataset.WebDataset(str(tmp_path / "texts.tar"), shardshuffle=False).decode("pilrgb", handler=skip)
    read = {sample["__key__"]: _ids(sample["txt"]) for sample in theirs}
    assert ids == read
    assert len(skipped) == len(bad) == 5
    assert all("its caption is not UTF-8" in line for line in bad)
    assert ids["mark"] == _ids("a cat")


def test_white_space_around_a_caption_reaches_the_tokenizer(tmp_path: Path) -> None:
    # Mojibake of a letter whose second byte looks like a space: ftfy sees it only where nothing was stripped.
    texts = {"nbsp": {"txt": "voilÃ\xa0".encode()}, "space": {"txt": "voilÃ ".encode()}}
    ids, _ = _load(tmp_path, texts, CaptionSource())
    assert ids == {"nbsp": _ids("voilà"), "space": _ids("voilà")}
    # A tokenizer that leaves texts alone gets them without the line feed at their end.
    path = tmp_path / "tokenizer.json"
    model = {"type": "WordLevel", "vocab": {"?": 0, "cat": 1, "\n": 2}, "unk_token": "?"}
    whole = {"version": "1.0", "added_tokens": [], "pre_tokenizer": None, "normalizer": None, "model": model}
    path.write_text(json.dumps(whole | {"post_processor": None, "decoder": None}), encoding="utf-8")
    words = type(TOKENIZER)(kind="file", path=path, context_length=2, pad_id=0)
    ids, _ = _load(tmp_path, {"k": {"txt": b" cat\r\n"}}, CaptionSource(), tokenizer=words)
    assert ids == {"k": [1, 0]}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**20), 10**20) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=12)
@given(data=st.data())
def test_any_json_that_python_writes_is_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """NaN, half pairs of surrogates, escapes, big numbers, equal keys: what `json.loads` takes is taken."""
    draw = random.Random(data.draw(st.integers(0, 2**32)))
    texts, expected = {}, {}
    for number in range(40):
        caption = data.draw(st.text(max_size=12))
        parts = [json.dumps(data.draw(JSON), ensure_ascii=draw.random() < 0.5) for _ in range(2)]
        written = json.dumps(caption, ensure_ascii=draw.random() < 0.5)
        gap = draw.choice(["", " ", "\n\t"])
        whole = (
            f'{gap}{{{gap}"a"{gap}:{gap}{parts[0]},{gap}"c":"x","c"{gap}:{written}{gap},"z":{gap}{parts[1]}{gap}}}{gap}'
        )
        encoded_whole = whole.encode("utf-8", "replace")
        assert json.loads(encoded_whole)
        texts[f"k{number}"] = {"json": encoded_whole}
        expected[f"k{number}"] = _ids(json.loads(encoded_whole)["c"])
    ids, bad = _load(tmp_path_factory.mktemp("json"), texts, CaptionSource(key="c"))
    assert not bad
    assert ids == expected
