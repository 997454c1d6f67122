"""Archives are read as webdataset reads them: the same samples, bytes and order."""

import contextlib
import gzip
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import webdataset
from hypothesis import assume, example, given, settings, strategies as st
from PIL import Image
from tests.support.images import encode
from webdataset import tariterators

from prolip.data import BatchLoader, DataError, LoaderConfig, NoSampleError, StoreConfig
from prolip.data.config import TokenizerConfig
from prolip.data.tokenizer import Tokenizer

TOKENIZER = TokenizerConfig(context_length=8)
KEPT = ("json", "png", "seg.png", "cls", "txt")


def png(shade):
    return encode(Image.new("RGB", (8, 8), (shade, 255 - shade, 3)), "png")


class Entry(NamedTuple):
    name: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""


# What an archive ends with, behind its members.
ENDS = {
    "as tar ends it": bytes(1024),
    "nothing": b"",
    "one block": bytes(512),
    "many zeros": bytes(20_480),
    "rubbish behind zeros": bytes(1024) + b"rubbish" * 300,
}


def write(path, entries, kind=tarfile.PAX_FORMAT, end=bytes(1024)):
    """Writes an archive; packed if the path says so."""
    with io.BytesIO() as stream, tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type = entry.kind
            info.size = len(entry.data) if info.isreg() else 0
            info.linkname = "a.png" if info.issym() or info.islnk() else ""
            archive.addfile(info, io.BytesIO(entry.data))
        plain = stream.getvalue() + end
    match path.suffix.lower():
        case ".gz" | ".tgz":
            path.write_bytes(gzip.compress(plain))
        case ".zst":
            path.write_bytes(subprocess.run(["zstd", "-q"], input=plain, stdout=subprocess.PIPE, check=True).stdout)
        case _:
            path.write_bytes(plain)


class Theirs(NamedTuple):
    samples: list[dict[str, Any]]
    """webdataset's samples, without those of which two members have one name."""
    doubled: int
    """How many those are."""


def theirs(paths):
    """What webdataset reads from shards, going on where it would raise."""
    samples = []
    doubled = set()

    def go_on(error):
        assert "duplicate file name" in str(error)
        doubled.add(len(samples))
        return True

    with contextlib.ExitStack() as stack:
        sources = [{"url": path.name, "stream": stack.enter_context(path.open("rb"))} for path in paths]
        for sample in tariterators.group_by_keys(tariterators.tar_file_expander(sources), handler=go_on):
            samples.append(sample)
    return Theirs([sample for place, sample in enumerate(samples) if place not in doubled], len(doubled))


def usable(sample):
    """Whether open_clip's training takes a sample: one with an image and a caption."""
    return "txt" in sample and ("png" in sample or "jpg" in sample)


def evaluation(*paths, require_end=False):
    """A loader that accepts archives without an end, as webdataset does."""
    return BatchLoader(
        LoaderConfig(
            shards=tuple(map(str, paths)),
            batch_size=3,
            image_size=8,
            tokenizer=TOKENIZER,
            shuffle_window=0,
            last_batch="keep",
            max_bad_fraction=1.0,
            keep_members=KEPT,
            store=StoreConfig(require_archive_end=require_end),
        )
    )


def shown(key):
    """A key of webdataset's as we have it: bytes that are not UTF-8, half-characters there, are written out here."""
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


def compare(*paths, plain=()):
    """Compares what both read; webdataset from `plain` where it cannot unpack. Gives the number of samples."""
    found = theirs(plain or paths)
    expected = [sample for sample in found.samples if usable(sample)]
    if not found.samples and not found.doubled:
        with pytest.raises(NoSampleError, match="the shards hold no sample"):
            evaluation(*paths)
        return 0
    keys, shades, ids = [], [], []
    members = {extension: [] for extension in KEPT}
    loader = evaluation(*paths)
    for batch in loader:
        keys += batch.keys
        shades += batch.images[:, 0, 0, 0].tolist()
        ids += batch.token_ids[0].tolist()
        for extension, some in batch.members.items():
            members[extension] += some
    assert keys == [shown(sample["__key__"]) for sample in expected]
    assert members == {extension: [sample.get(extension) for sample in expected] for extension in KEPT}
    for sample, shade, row in zip(expected, shades, ids, strict=True):
        image = sample["jpg"] if "jpg" in sample else sample["png"]
        assert np.asarray(Image.open(io.BytesIO(image)))[0, 0, 0] == shade
        assert Tokenizer(TOKENIZER).encode([sample["txt"].decode()])[0].tolist() == row
    bad = loader.stats().bad
    assert bad.pop("duplicate", 0) == found.doubled
    assert sum(bad.values()) == len(found.samples) - len(expected)
    assert set(bad) <= {"no_image", "caption"}
    return len(expected)


def entry(name, place, kind=tarfile.REGTYPE):
    """A member whose bytes fit its extension and tell its place; a name that ends in a slash is a folder."""
    data = b""
    match name.rsplit(".", 1)[-1].lower():
        case "png" | "jpg":
            data = png(place % 256)
        case "txt":
            data = f"caption {place}".encode()
        case "json":
            data = json.dumps(place).encode()
        case "cls":
            data = bytes(range(place % 256))
    return Entry(name, tarfile.DIRTYPE if name.endswith("/") and kind == tarfile.REGTYPE else kind, data)


UGLY = {
    "plain": ["a.png", "a.txt", "b.png", "b.txt"],
    "upper case": ["a.PNG", "a.Txt", "A.png", "A.TXT"],
    "several extensions": ["a.seg.png", "a.png", "a.txt", "a.0.txt", "a.cls"],
    "dots in folders": ["v1.0/a.png", "v1.0/a.txt", "v1.0/b.c.txt", "v1.0/b.png", "v1.0/b.txt"],
    "a sample split by another": ["a.png", "b.png", "a.txt", "b.txt", "c.png", "c.txt"],
    "members without a key": ["README", "a.png", "Makefile", "a.txt", ".hidden", ".hidden.txt", "b.png", "b.txt"],
    "hidden files in folders": ["d/.x.png", "d/.x.txt", "d/e.f/.y.png", "d/e.f/.y.txt", "d/.png", "d/.txt"],
    "meta members": ["__index__", "__meta__/a.txt", "a.png", "__stats__.json", "a.txt", "x/__y__.png", "x/__y__.txt"],
    "folders": ["d/", "d/a.png", "d/sub/", "d/a.txt", "d/sub/a.png", "d/sub/a.txt"],
    "missing members": ["a.png", "b.txt", "c.png", "c.txt", "d.json"],
    "json": ["a.json", "a.png", "a.txt"],
    "long names": [f"{'folder/' * 30}{name}" for name in ("a.png", "a.txt", "b.png", "b.txt")],
    "long names of one part": [f"{'n' * 180}.{extension}" for extension in ("png", "txt")],
    "names beyond ASCII": ["été/ß.png", "été/ß.txt", "猫.png", "猫.txt"],
    "nothing": [],
}


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("names", UGLY.values(), ids=UGLY)
def test_odd_names_are_grouped_as_webdataset_groups_them(tmp_path, names, kind):
    entries = [entry(name, place) for place, name in enumerate(names)]
    path = tmp_path / "ugly.tar"
    try:
        write(path, entries, kind)
    except ValueError:
        # ustar has no room for such a name.
        assert kind == tarfile.USTAR_FORMAT
        return
    if compare(path) == 0:
        assert not names or "d/.x.png" in names


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "TAR.GZ", "tar.zst"])
def test_compression_and_archive_end_do_not_change_the_samples(tmp_path, suffix, end):
    entries = [entry(name, place) for place, name in enumerate(["a.png", "a.txt", "b.png", "b.txt"])]
    packed, plain = tmp_path / f"a.{suffix}", tmp_path / "plain.tar"
    write(packed, entries, end=end)
    write(plain, entries, end=end)
    assert compare(packed, plain=[plain]) == 2


def test_equal_keys_in_two_shards_are_two_samples_and_empty_shards_are_allowed(tmp_path):
    """A key that ends one shard and begins the next is two samples; shards may hold no sample, and no member."""
    names = [
        ["a.png", "a.txt"],
        ["a.png", "a.txt", "b.png"],
        [],
        ["b.txt"],
        ["README"],
        ["b.png", "b.txt", "a.png", "a.txt"],
    ]
    paths = [tmp_path / f"{shard}.tar" for shard in range(len(names))]
    for shard, path in enumerate(paths):
        write(path, [entry(name, 10 * shard + place) for place, name in enumerate(names[shard])])
    assert compare(*paths) == 4


def test_links_devices_and_folders_are_skipped_as_in_webdataset(tmp_path):
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE]
    between = [entry(f"a.{number}.txt", number, kind) for number, kind in enumerate(kinds)]
    first, second = entry("a.png", 1, tarfile.AREGTYPE), entry("a.txt", 2, tarfile.CONTTYPE)
    other = [entry(name, 7) for name in ("b.png", "b.txt")]
    write(tmp_path / "0.tar", [*between, first, *between, second, *between, *other])
    assert compare(tmp_path / "0.tar") == 2


# Parts of names, so that keys meet, extensions repeat, and dots, slashes and line breaks stand anywhere.
PARTS = st.sampled_from(["a", "b", "A", "d/", "é", "\udce9", "\udce8", ".", ".", "/", "..", "__", " ", "\n", "n" * 90])
NAMES = st.builds(
    lambda parts, extension: "".join(parts) + extension,
    st.lists(PARTS, max_size=5),
    st.sampled_from([".png", ".PNG", ".txt", ".txt", ".Txt", ".json", ".jpg", ".cls", ".seg.png", ".", "", "/"]),
).filter(bool)
FEW_NAMES = st.sampled_from(["a.png", "a.txt", "b.png", "b.txt", "a.PNG", "v1.0/a.png", "v1.0/a.txt", "a.json", "d/"])
KINDS = st.sampled_from([tarfile.REGTYPE] * 8 + [tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE])
SHARD = st.tuples(
    st.lists(st.tuples(st.one_of(FEW_NAMES, NAMES), KINDS), max_size=9),
    st.sampled_from(FORMATS),
    st.sampled_from([*ENDS]),
    st.sampled_from(["tar", "tar", "tar.gz"]),
)


@settings(max_examples=150)
@example([([("a.png", b"0"), ("é./", b"7"), ("a.txt", b"0")], tarfile.PAX_FORMAT, "as tar ends it", "tar")])
@given(st.lists(SHARD, min_size=1, max_size=3))
def test_random_shards_are_grouped_as_webdataset_groups_them(shards):
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (names, kind, end, suffix) in enumerate(shards):
            path = Path(folder) / f"{number}.{suffix}"
            entries = [entry(name, 10 * number + place, kind) for place, (name, kind) in enumerate(names)]
            # An archive of nothing and without an end is an empty file: no archive to either.
            assume(entries or ENDS[end])
            try:
                write(path, entries, kind, ENDS[end])
            except ValueError:
                assume(False)
            paths.append(path)
        compare(*paths)


def test_shards_of_webdatasets_writer_are_read(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "0.tar")) as writer:
        for index in range(7):
            writer.write(
                {"__key__": f"{index:04}", "png": png(index), "txt": f"number {index}", "json": {"index": index}}
            )
    assert compare(tmp_path / "0.tar") == 7
    assert evaluation(tmp_path / "0.tar", require_end=True).num_samples == 7


def test_an_archive_cut_between_samples_is_damaged_where_webdataset_sees_none(tmp_path):
    """Departure: webdataset says nothing; here the end that is missing is one bad sample."""
    path = tmp_path / "0.tar"
    write(path, [entry(name, 1) for name in ("a.png", "a.txt", "b.png", "b.txt")])
    path.write_bytes(path.read_bytes()[: 2 * 1024])
    assert [sample["__key__"] for sample in theirs([path]).samples] == ["a"]
    loader = evaluation(path, require_end=True)
    assert [batch.keys for batch in loader] == [["a"]]
    stats = loader.stats()
    assert stats.bad == {"archive": 1}
    assert "0.tar: sample no. 1: there is nothing at byte 2048" in str(stats.bad_samples[0])


def test_a_sparse_member_is_an_error_that_names_it(tmp_path):
    """Departure: webdataset lets tarfile fill the holes; here nothing is read wrongly, and nothing is filled."""
    write(tmp_path / "0.tar", [entry("a.png", 1), entry("a.txt", 1), Entry("holes.png", tarfile.GNUTYPE_SPARSE)])
    with pytest.raises(DataError, match=r"0\.tar: byte 2048: member \"holes\.png\" is sparse, which is not supported"):
        evaluation(tmp_path / "0.tar")
