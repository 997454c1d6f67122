"""Fixtures for every test: where the optional inputs are."""

import atexit
import gc
import os
import shlex
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.forkserver import share
from tests.support.open_clip_merges import read_merges_once
from tests.support.warm_python import warm_python
from tests.world import make_world, once, unchanged, world_in

# A shell lets its background jobs ignore SIGINT, and their children inherit that: Python then has no Ctrl-C. Some tests
# send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A single example may take long on a busy machine; the whole test has pytest's timeout.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    """Starts the server that the workers are forked from, and what their tests start: it has imported PyTorch once."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        # As many tests run at a time as there are cores, and some start processes: each has one thread, which does not
        # spin while it waits. PyTorch reads this when it is imported, by the server or by a worker.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        share()
        python = warm_python(Path(tempfile.mkdtemp(prefix="prolip-tests-")))
        atexit.register(shutil.rmtree, python.parent)
        local = f"popen//python={shlex.quote(str(python))}"
        config.option.tx = [local if worker == "popen" else worker for worker in config.option.tx]


def pytest_collection_finish():
    """Takes all that was imported out of the garbage collector, whose full runs take half a second otherwise."""
    read_merges_once()
    gc.collect()
    gc.freeze()


def shared_folder():
    """The folder of inputs that may not be redistributed (photographs, full reference vectors); it may be absent."""
    return Path(os.environ.get("PROLIP_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def simd_level_asked_for():
    """Checks that the loader runs at the level that `PROLIP_SIMD` names, by default the fastest."""
    from prolip.data import simd_level, simd_levels

    assert simd_level() == (os.environ.get("PROLIP_SIMD") or simd_levels()[-1])


@pytest.fixture(scope="session")
def shared():
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name!r} beside the checkout and PROLIP_SHARED is not set")
    return folder


@pytest.fixture(scope="session")
def photos(shared):
    found = sorted((shared / "photos").glob("*.JPEG"))
    if not found:
        pytest.skip("the shared folder has no photos/*.JPEG")
    return found


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory):
    """The folder that all workers of this session share, for what `once` makes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def world(session_folder):
    """The world that all tests read; the session fails if one changed it."""
    folder = session_folder / "world"
    once(folder, lambda folder: make_world(world_in(folder)))
    with unchanged(folder):
        yield world_in(folder)
