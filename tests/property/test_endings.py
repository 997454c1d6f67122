"""Loaders that are closed, dropped, forked or interrupted at any moment never hang the interpreter."""

import random
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.http_servers import answering, send_file
from tests.support.shards import members, write_tar

ROOT = Path(__file__).parents[2]
NUM_SHARDS = 5
LIMIT_S = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(NUM_SHARDS):
        write_tar(
            folder / f"{shard}.tar",
            # Captions that need ftfy take the interpreter from the loader's threads.
            [entry for index in range(20) for entry in members(f"{shard}-{index}é", (shard, index, 9))],
        )
    return folder


DRAW = random.Random(1)


def late_file(request):
    """A file, after a while."""
    time.sleep(DRAW.random() * 0.1)
    with suppress(ConnectionError):
        send_file(request)


@contextmanager
def supplied(supply, folder):
    """A pattern of shards."""
    if supply == "local":
        yield str(folder / "{0..4}.tar")
    else:
        with answering(late_file, folder) as url:
            yield f"{url}/{{0..4}}.tar"


@contextmanager
def started(kind, seed, rounds, shards):
    """A process that ends loaders; it is killed where it does not end itself, after it has said where it stands."""
    module = [sys.executable, "-X", "faulthandler", "-m", "tests.property.random_ends"]
    command = [*module, kind, str(seed), str(rounds), shards]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        _, error = process.communicate(timeout=30)
        pytest.fail(f"it hangs:\n{error}")
    finally:
        process.kill()
        process.communicate()


SUPPLIES = ["local", "streamed"]


@pytest.mark.parametrize("supply", SUPPLIES)
def test_ending_a_loader_at_any_moment_does_not_hang(folder, supply):
    with supplied(supply, folder) as shards, started("ended", SUPPLIES.index(supply), 30, shards) as process:
        output, error = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, error
    assert output == "ready\n30 rounds, 0 interrupts\n"


@pytest.mark.parametrize("supply", SUPPLIES)
def test_interrupting_a_loader_at_any_moment_does_not_hang(folder, supply):
    draw = random.Random(5)
    with supplied(supply, folder) as shards, started("interrupted", 1, 20, shards) as process:
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + LIMIT_S
        # It says when it is done: while Python ends, nothing would handle a signal.
        while time.monotonic() < deadline:
            done, _, _ = select.select([process.stdout], [], [], 0.005 + draw.random() * 0.05)
            if done:
                break
            process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    rounds, interrupts = (int(word) for word in output.split() if word.isdigit())
    assert rounds == 20
    assert interrupts > 4
