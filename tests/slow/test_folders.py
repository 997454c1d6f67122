"""Folders here and in object stores: a file is whole or absent, also when the connection breaks in an upload."""

import os
import time

import numpy as np
import pytest
from tests.support.object_stores import SETTINGS, object_store, s3_settings
from tests.support.refusals import refusal_of
from tests.support.remote_shards import BUCKET
from tests.support.servers import StoreProxy, free_port, moto
from tests.support.shards import encoded

from prolip.errors import UserError
from prolip.pixels import Preprocess
from prolip.store.folder import Folder
from prolip.store.selection import Chosen, read_selection, write_selection

SOME = Chosen("a.tar", "", np.array([3, 7], np.uint32))
LARGE = os.urandom(12 << 20)
"""Several parts of an upload to S3."""


@pytest.mark.parametrize("scheme", ["", "s3", "gs"])
def test_files_are_written_listed_read_and_deleted(scheme, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    if scheme:
        server = object_store(scheme, tmp_path / "empty", tmp_path)
        SETTINGS[scheme](monkeypatch, server.__enter__())
    folder = Folder(f"{scheme}://{BUCKET}/a/out" if scheme else str(tmp_path / "a" / "out"))
    assert (folder.list(), folder.exists("b"), folder.name) == (set(), False, "out")
    folder.check_own("mark")
    for name, content in (("b", b"old"), ("b", LARGE), ("c", b"c"), ("left", b"")):
        folder.write(name, content)
    assert folder.list() == {"b", "c"}, "a killed writer may leave an empty file"
    assert (folder.read("b"), folder.read("c")) == (LARGE, b"c")
    with folder.open("b") as stream:
        stream.seek(5)
        assert stream.read(3) == LARGE[5:8]
    assert write_selection(folder.at("chosen"), [SOME]) == 2
    assert next(read_selection(folder.at("chosen"))).rows.tolist() == [3, 7]
    image = encoded((9, 8, 7))
    folder.write("a.png", image)
    preprocess = Preprocess(size=8)
    assert preprocess(folder.at("a.png")).equal(preprocess(image))
    folder.delete("a.png")
    folder.delete("chosen")
    with refusal_of("selection"):
        next(read_selection(folder.at("chosen")))
    with refusal_of("out"):
        folder.check_own("mark")
    folder.check_own("mark", "c")
    for _ in range(2):
        folder.delete("c")
    assert not folder.exists("c")
    with pytest.raises(FileNotFoundError):
        folder.open("c")
    if scheme:
        server.__exit__(None, None, None)


@pytest.mark.timeout(120)
def test_an_upload_survives_faults_and_a_broken_one_leaves_nothing(tmp_path, monkeypatch):
    with moto(tmp_path, BUCKET) as endpoint:
        for seed in range(2):
            with StoreProxy(endpoint, seed, 0.3) as proxy:
                s3_settings(monkeypatch, proxy.url)
                folder = Folder(f"s3://{BUCKET}/{seed}")
                while proxy.faults.keys() <= {"none", "delay"}:
                    folder.write("part", LARGE)
                    assert folder.read("part") == LARGE
        monkeypatch.setattr("prolip.store.folder._ATTEMPTS", 2)
        with StoreProxy(endpoint, 0, 0, breaks_after=8 << 20) as proxy:
            s3_settings(monkeypatch, proxy.url)
            folder = Folder(f"s3://{BUCKET}/broken")
            with refusal_of(folder.at("part")):
                folder.write("part", LARGE)
        s3_settings(monkeypatch, endpoint)
        assert folder.list() == set()
        folder.write("part", LARGE)
        assert folder.read("part") == LARGE


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/a", "s3://bucket/a?secret", "s3://bucket", "ftp://b/a"])
def test_wrong_addresses_are_named_without_secrets(address):
    with pytest.raises(UserError, match="must be a folder") as error:
        Folder(address)
    assert "secret" not in str(error.value)


def test_a_dead_store_is_named(monkeypatch):
    s3_settings(monkeypatch, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("prolip.store.folder._ATTEMPTS", 2)
    begun = time.monotonic()
    with refusal_of("s3://bucket/a"):
        Folder("s3://bucket/a").list()
    assert time.monotonic() - begun < 20
