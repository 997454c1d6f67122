"""`prolip embed` into an object store: its parts are the local ones, whatever fails and whoever helps."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.object_stores import s3_settings
from tests.support.refusals import refusal_of
from tests.support.remote_shards import BUCKET
from tests.support.servers import StoreProxy, moto

from prolip.embeddings.config import EmbedOptions, SearchOptions
from prolip.embeddings.embed import run_embed
from prolip.embeddings.search import run_search
from prolip.embeddings.storage import MANIFEST
from prolip.store.folder import Folder


@pytest.fixture
def embed(world):
    """Embeds what the world's embeddings are of, into another folder."""

    def run(out, **changes):
        given = {"what": "both", "caption_key": "captions.name", "device": "cpu"} | changes
        return run_embed(EmbedOptions(checkpoint=str(world.run), shards=(str(world.shards),), out=out, **given))

    return run


@pytest.fixture
def near(world):
    """The parts that were made here."""
    return {path.name: path.read_bytes() for path in world.embeddings.glob("*.parquet")}


@pytest.fixture
def store(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with moto(tmp_path / "empty", BUCKET) as endpoint:
        s3_settings(monkeypatch, endpoint)
        yield endpoint


def parts(folder):
    return {name: folder.read(name) for name in folder.list() - {MANIFEST}}


def test_parts_in_a_store_equal_local_ones_whatever_fails(embed, near, store, world, monkeypatch):
    folder = Folder(f"s3://{BUCKET}/far")
    with StoreProxy(store, 0, 0.3, delay=0.05) as proxy:
        s3_settings(monkeypatch, proxy.url)
        embed(folder.address)
        assert parts(folder) == near
        ask = SearchOptions(embeddings=folder.address, text=("red",), device="cpu", json=True)
        found = run_search(ask)
    here = SearchOptions(embeddings=str(world.embeddings), text=("red",), device="cpu", json=True)
    assert found == run_search(here)


@pytest.mark.usefixtures("store")
def test_commands_of_one_plan_make_the_parts_together_and_others_are_refused(embed, near):
    folder = Folder(f"s3://{BUCKET}/shared")
    with ThreadPoolExecutor(3) as pool:
        for run in [pool.submit(embed, folder.address) for _ in range(3)]:
            run.result()
    assert parts(folder) == near
    with refusal_of("out"):
        embed(folder.address, log_var=True)
