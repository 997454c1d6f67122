"""Members that batches carry are the bytes that Python's tarfile reads, for any threads and ranks."""

import gzip
import random
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings, strategies as st
from tests.support.shards import encoded, read_tar, write_tar

from prolip.data import BatchLoader, DataError, LoaderConfig, Members

KEPT = ("cls", "npy", "txt", "seg.png", "png")
IMAGE = encoded((9, 8, 7))
SIZES = st.sampled_from([0, 1, 511, 512, 513, 2000, (1 << 20) + 3])
SAMPLE = st.tuples(
    st.booleans(),  # whether its image can be read
    st.dictionaries(st.sampled_from(["cls", "npy", "txt", "seg.png", "json", "CLS"]), SIZES, max_size=4),
)


class Read(NamedTuple):
    keys: list[str]
    members: Members


def of_tarfile(paths):
    """What tarfile reads of the samples whose image is one."""
    samples = {}
    for path in paths:
        for name, data in read_tar(path):
            key, _, extension = name.partition(".")
            samples.setdefault(key, {})[extension.lower()] = data
    good = {key: members for key, members in samples.items() if members["png"] == IMAGE}
    return Read(list(good), {extension: [members.get(extension) for members in good.values()] for extension in KEPT})


def of_loader(config, world_size=1):
    keys = []
    members = {extension: [] for extension in config.keep_members}
    for rank in range(world_size):
        with BatchLoader(config, rank=rank, world_size=world_size) as loader:
            for batch in loader:
                keys += batch.keys
                for extension, some in batch.members.items():
                    assert len(some) == len(batch.keys)
                    members[extension] += some
    return Read(keys, members)


def by_key(read):
    return {key: [some[place] for some in read.members.values()] for place, key in enumerate(read.keys)}


def evaluation(paths, **changes):
    settings = {
        "shards": tuple(map(str, paths)),
        "batch_size": 3,
        "image_size": 8,
        "captions": (),
        "shuffle_window": 0,
        "last_batch": "keep",
        "max_bad_fraction": 1.0,
        "keep_members": KEPT,
    }
    return LoaderConfig(**{**settings, **changes})


@settings(max_examples=60)
@given(
    st.lists(st.lists(SAMPLE, min_size=1, max_size=6), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 7),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_kept_members_equal_those_read_by_tarfile(shards, threads, world_size, batch_size, packed, seed):
    draw = random.Random(seed)  # of bytes: too many to be hypothesis's own draws
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, samples in enumerate(shards):
            members = []
            for place, (readable, sizes) in enumerate(samples):
                names = {name.lower(): name for name in sizes}.values()  # of two that differ in case one is bad
                some = [(name, draw.randbytes(sizes[name])) for name in names]
                some.insert(draw.randint(0, len(some)), ("png", IMAGE if readable else b"no image"))
                members += [(f"s{number}k{place}.{extension}", data) for extension, data in some]
            path = Path(folder) / f"{number}.tar"
            write_tar(path, members)
            if packed:
                path.with_suffix(".tar.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
                path = path.with_suffix(".tar.gz")
            paths.append(path)
        found = of_loader(evaluation(paths, num_threads=threads, batch_size=batch_size), world_size)
        expected = of_tarfile(paths)
        if packed:  # of these nobody knows the lengths: each rank reads shards of its own
            assert by_key(found) == by_key(expected)
        else:
            assert found == expected


def test_a_sample_that_replaces_a_bad_one_has_its_own_members(tmp_path):
    """In training another sample takes the place of a bad one, with its members and not with those of the bad one."""
    members = []
    for place in range(12):
        members += [(f"k{place}.cls", str(place).encode()), (f"k{place}.png", IMAGE if place % 3 else b"no image")]
    write_tar(tmp_path / "0.tar", members)
    changes = {"last_batch": "drop", "num_epochs": 3, "shuffle_window": 5, "keep_members": ("cls", "txt")}
    found = of_loader(evaluation([tmp_path / "0.tar"], **changes))
    assert len(found.keys) == 36
    assert found.members["cls"] == [key.removeprefix("k").encode() for key in found.keys]
    assert set(found.members["txt"]) == {None}


def test_without_decoding_an_unreadable_image_is_no_error(tmp_path):
    write_tar(tmp_path / "0.tar", [("a.png", b"no image"), ("a.cls", b"7"), ("b.cls", b"8"), ("c.png", IMAGE)])
    with BatchLoader(evaluation([tmp_path / "0.tar"], image_size=0, keep_members=("cls", "png"))) as loader:
        (batch,) = loader
        assert loader.stats().bad == {"no_image": 1}
    assert (batch.keys, batch.images.shape) == (["a", "c"], (2, 0, 0, 3))
    assert batch.members == {"cls": [b"7", None], "png": [b"no image", IMAGE]}


@pytest.mark.parametrize("size", [200_000, 3 << 20])
def test_a_member_that_is_too_large_is_named(size, tmp_path):
    """With shard, key and limit, whether or not the sample is large enough to be read in parts."""
    write_tar(tmp_path / "0.tar", [("a.png", IMAGE), ("a.cls", b"7"), ("b.png", IMAGE), ("b.npy", bytes(size))])
    config = evaluation([tmp_path / "0.tar"], keep_members=("cls", "npy"), max_member_bytes=100_000)
    expected = r"0\.tar: sample b: its members have \d+ bytes, more than max_member_bytes = 100000 allows"
    with BatchLoader(config) as loader:
        assert [batch.keys for batch in loader] == [["a"]]
        assert loader.stats().bad == {"read": 1}
    strict = evaluation([tmp_path / "0.tar"], keep_members=("npy",), max_member_bytes=100_000, max_bad_fraction=0.0)
    with BatchLoader(strict) as loader, pytest.raises(DataError, match=expected):
        list(loader)
    # What is not kept takes no memory, and is no matter.
    assert of_loader(evaluation([tmp_path / "0.tar"], keep_members=("cls",), max_member_bytes=100_000)).keys == [
        "a",
        "b",
    ]
