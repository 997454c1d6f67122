"""Raw samples of shards."""

import json

import pytest
from tests.support.shards import TOKENIZER, config, encoded, write_tar

from prolip.data import BatchLoader, CaptionConfig, CaptionSource, DataError, StoreConfig
from prolip.data.samples import EXTENSIONS, captions_at, encoded_image, file_name, read_members, values_at
from prolip.data.tokenizer import Tokenizer
from prolip.errors import UserError


def test_samples_with_images_are_read_in_order_with_the_given_members(tmp_path):
    first, second = encoded((9, 9, 9)), encoded((200, 0, 0))
    members = [("a.png", second), ("a.jpg", first), ("a.txt", b"one"), ("b.txt", b"no image"), ("c.webp", b"broken")]
    write_tar(tmp_path / "0.tar", members)
    found = dict(read_members(str(tmp_path / "0.tar"), (*EXTENSIONS, "txt", "json"), StoreConfig()))
    assert [(key, encoded_image(some)) for key, some in found.items()] == [("a", first), ("c", b"broken")]
    assert captions_at("a", found["a"], "txt") == ["one"]
    assert captions_at("a", {"txt": b"\xef\xbb\xbf a cat\n"}, "txt") == ["a cat"], "without a byte order mark"
    assert captions_at("c", found["c"], "txt") == captions_at("c", found["c"], "a.b") == []


def test_an_empty_archive_has_no_samples_and_another_file_is_an_error(tmp_path):
    write_tar(tmp_path / "0.tar", [])
    assert list(read_members(str(tmp_path / "0.tar"), (), StoreConfig())) == []
    (tmp_path / "1.tar").write_bytes(b"no archive" * 100)
    with pytest.raises((UserError, DataError), match=r"1\.tar"):
        list(read_members(str(tmp_path / "1.tar"), (), StoreConfig()))


@pytest.mark.parametrize(
    ("record", "path", "expected"),
    [
        ({"a": ["cat", "dog"]}, "a", ["cat", "dog"]),
        ({"a": ["cat", "dog"]}, "a.1", ["dog"]),
        ({"a": ["cat", "dog"]}, "a.2", []),
        ({"a": [{"b": "cat"}, {"c": "dog"}, {"b": ["owl"]}]}, "a.b", ["cat", "owl"]),
        ({"a": [{"b": "cat"}, {"b": "dog"}]}, "a.*.b", ["cat", "dog"]),
        ({"a": [{"b": "cat"}, {"b": ["dog", "owl"]}]}, "a.1.b.0", ["dog"]),
        ({"a": [["cat", ["dog"]], "owl"]}, "a", ["cat", "dog", "owl"]),
        (["cat", "dog"], "0", ["cat"]),
        ("cat", "a", []),
        ({"a": ["half \ud83d of a pair"]}, "a", ["half \ufffd of a pair"]),
    ],
)
def test_a_dotted_path_leads_to_the_captions_of_the_loader(tmp_path, record, path, expected):
    assert values_at("k", json.dumps(record).encode(), path) == expected
    write_tar(tmp_path / "0.tar", [("k.png", encoded((1, 2, 3))), ("k.json", json.dumps(record).encode())])
    slots = (CaptionConfig(sources=(CaptionSource(key=path),)),)
    settings = config(str(tmp_path / "0.tar"), last_batch="keep", captions=slots, num_epochs=30, max_bad_fraction=1)
    drawn = {tuple(batch.token_ids[0, 0].tolist()) for batch in BatchLoader(settings)}
    assert drawn == {tuple(row) for row in Tokenizer(TOKENIZER).encode(expected).tolist()}


@pytest.mark.parametrize("member", [b"[" * 100_000, b"[" * 900 + b"]" * 900, b"{", b"\xff"])
def test_json_that_cannot_be_read_is_an_error_of_its_sample(member):
    with pytest.raises(DataError, match="sample k7"):
        values_at("k7", member, "a")
    assert file_name("k7", member) is None
