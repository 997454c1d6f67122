"""Shards for the page of `prolip explore`, and the page served over them."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.class_folders import write_calibrated_world
from tests.support.forked import Forked
from tests.support.servers import free_port
from tests.support.shards import encoded, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main


def write_items(folder):
    """A test and a training shard with the same keys, and a sample without an image."""
    for name, colours in (("test-000.tar", range(12)), ("train-000.tar", range(3))):
        samples = [("100.txt", b"no image")]
        for number in colours:
            record = {"captions": {"name": [f"a {number}"], "group": ["an animal", "unused"]}, "number": number}
            samples += [
                (f"{number:03}.png", encoded((number * 20, 40, 200 - number * 9))),
                (f"{number:03}.json", json.dumps(record).encode()),
            ]
        write_tar(folder / name, samples)


class ServedPage(NamedTuple):
    """A page in a process of its own."""

    address: str
    process: Forked
    log: Path


@contextmanager
def served_page(folder, *more, calibrated=False):
    """Serves the page of an untrained model, and ends it."""
    if calibrated:
        write_calibrated_world(folder)
        given = f"--checkpoint {folder}/run --data {folder}/mine --device cpu".split()
        assert main(["calibrate", *given, "--num_resamples", "1"]) == 0
    else:
        write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    write_items(folder)
    port = free_port()
    words = f"explore --checkpoint {folder}/run --shards {folder} --port {port}".split()
    words += ["--max_upload_mb", "1", "--caption_key", "captions.name", "captions.group", *more]
    log = folder / "log"
    with log.open("w") as told:
        server = Forked(
            [sys.executable, "-m", "prolip.cli", *words],
            stdout=told,
            stderr=told,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        yield ServedPage(url, server, log)
    finally:
        server.terminate()
        server.wait(30)
