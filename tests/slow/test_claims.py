"""Of several commands that write the same file or folder, one does it, and the others say who."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.forked import Forked
from tests.support.object_stores import SETTINGS, object_store
from tests.support.refusals import refusal_of
from tests.support.remote_shards import BUCKET

from prolip.embeddings.config import CopyOptions, DedupeOptions, EmbedOptions, SelectOptions
from prolip.embeddings.copy_samples import run_copy
from prolip.embeddings.dedupe import run_dedupe
from prolip.embeddings.embed_inputs import run_embed
from prolip.embeddings.select import run_select
from prolip.errors import UserError
from prolip.store.file_locks import has_ended, owner
from prolip.store.folder import Folder, claimed


@pytest.fixture(params=["", "s3", "gs"])
def address(request, tmp_path, monkeypatch):
    if not (scheme := request.param):
        yield str(tmp_path / "a" / "out")
        return
    (tmp_path / "empty").mkdir()
    with object_store(scheme, tmp_path / "empty", tmp_path) as endpoint:
        SETTINGS[scheme](monkeypatch, endpoint)
        yield f"{scheme}://{BUCKET}/a/out"


def test_one_of_several_has_a_file_and_a_dead_owner_loses_it(address, monkeypatch):
    monkeypatch.setattr("prolip.store.file_locks.LOCK_SECONDS", 0.5)
    monkeypatch.setattr("prolip.store.folder._RENEWED", 0.5)
    monkeypatch.setattr("prolip.store.folder._STALE", 5.0)
    folder = Folder(address)
    start, ended = threading.Barrier(5), threading.Event()

    def claim(_):
        start.wait()
        try:
            with claimed(folder.at("b.c")):
                assert ended.wait(60)
                return "mine"
        except UserError as error:
            if error.field not in {folder.address, folder.at("b.c")}:
                raise
            return str(error)

    with ThreadPoolExecutor(5) as pool:
        claims = [pool.submit(claim, number) for number in range(5)]
        deadline = time.monotonic() + 60
        while sum(one.done() for one in claims) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        folder.check_own("b.c")  # claims do not fill a folder
        with claimed(folder.at("c")), claimed(folder.at("b")):
            ended.set()
    told = [one.result() for one in claims]
    told.remove("mine")
    assert all('"pid": ' in one for one in told)
    assert folder.list() == set()
    folder.write(".b.c.0000dead.tmp" if folder.is_remote else ".b.c.reserved.tmp", b"dead")
    with claimed(folder.at("b.c")):
        pass
    assert folder.list() == set()


@pytest.mark.parametrize(
    ("run", "file"),
    [
        (
            lambda out: run_embed(EmbedOptions(checkpoint="absent", out=out, lines=(Path("lines.txt"),))),
            "manifest.json",
        ),
        (lambda out: run_select(SelectOptions(embeddings="absent", out=f"{out}/some")), "some"),
        (lambda out: run_dedupe(DedupeOptions(embeddings="absent", out=f"{out}/some")), "some"),
        (lambda out: run_copy(CopyOptions(selection="absent", out=Path(out))), "copy.json"),
    ],
)
def test_commands_claim_what_they_write_first(run, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prolip.store.file_locks.LOCK_SECONDS", 0.0)
    Path("lines.txt").write_text("a line")
    with claimed(f"out/{file}"), refusal_of("out"):
        run("out")


def test_a_claim_in_a_store_ends_with_its_process_on_this_machine(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with object_store("s3", tmp_path / "empty", tmp_path) as endpoint, Forked([sys.executable, "-c", ""]) as ended:
        SETTINGS["s3"](monkeypatch, endpoint)
        assert ended.wait() == 0
        folder, now = Folder(f"s3://{BUCKET}/a"), time.monotonic()
        dead = json.loads(owner()) | {"pid": ended.pid}
        folder.write(".b.0000dead.tmp", f"{json.dumps(dead)} renewed 3 times".encode())
        with claimed(folder.at("b")):
            assert time.monotonic() < now + 60
        assert folder.list() == set()
    assert not any(map(has_ended, (owner(), "", "{}", json.dumps(dead | {"among": None}))))
