"""Commands on a full disk or a read-only folder: one sentence that names the path."""

import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from tests.support.limited import file_limit
from tests.support.shards import encoded, write_tar
from tests.support.small_training import RECIPE, write_shard, write_tokenizer
from tests.support.untrained_run import write_run

from prolip.cli import main
from prolip.store.selection import Chosen, write_selection

pytestmark = pytest.mark.timeout(600)
BIG = encoded((1, 2, 3), (90, 90), "jpeg") + bytes(24_000)
"""An image of 24 kB."""


class World:
    """Inputs for every command."""

    def __init__(self, folder):
        self.folder = folder
        write_run(folder / "run", folder / "tokenizer.json", context_length=8)
        images = [(f"k{number}.{kind}", data) for number in range(60) for kind, data in (("jpg", BIG), ("txt", b"a"))]
        write_tar(folder / "images.tar", images)
        (folder / "classes" / "food").mkdir(parents=True)
        (folder / "classes" / "food" / "a.jpg").write_bytes(encoded((9, 9, 9), (300, 300), "jpeg") + bytes(40_000))
        write_selection(folder / "chosen", [Chosen(str(folder / "images.tar"), "", np.arange(50, dtype=np.uint32))])
        training = folder / "training"
        training.mkdir()
        write_shard(training / "train.tar")
        write_tokenizer(training / "tokenizer.json")
        (training / "recipe.toml").write_text(RECIPE.format(folder=training))

    def embed(self, out):
        return (
            f"embed --checkpoint {self.folder}/run --device cpu --shards {self.folder}/images.tar --out {out}".split()
        )

    def export(self, out):
        return f"export {self.folder}/run --out {out}".split()

    def copy(self, out):
        return f"data copy --selection {self.folder}/chosen --out {out}".split()

    def build(self, out):
        return f"data build folder --images {self.folder}/classes --out {out}".split()

    def train(self, out):
        return f"train {self.folder}/training/recipe.toml --out {out}".split()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


Ended = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def ended(capsys, caplog):
    """Runs a command with a limit on the size of a file; its exit status and what it said of what went wrong."""

    def run(words, limit=None):
        caplog.clear()
        capsys.readouterr()
        with nullcontext() if limit is None else file_limit(limit):
            status = main(words)
        logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        return status, [*capsys.readouterr().err.splitlines(), *logged]

    return run


Words = Callable[[World, Path], list[str]]
# What does not fit, and the limit of a file's size that the small files stay below.
COMMANDS = [
    (World.embed, "image-000000.parquet", 4_000),
    (World.export, "model.safetensors", 4_000),
    (World.copy, "images.tar", 500_000),
    (World.build, "", 30_000),
    (World.train, "checkpoints/step_000000020.partial", 16_000),
]
NAMES = [words.__name__ for words, _, _ in COMMANDS]


# A file that could not be flushed tries once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("words", "file", "limit"), COMMANDS, ids=NAMES)
def test_an_output_that_exceeds_the_limit_is_named_and_can_be_resumed(ended, world, tmp_path, words, file, limit):
    out = tmp_path / "out"
    status, said = ended(words(world, out), limit)
    assert status == 2, said
    assert "Traceback" not in "".join(said)
    room = r"([\d,]+ bytes are needed, )?[\d,]+ are free"
    assert re.search(rf"{re.escape(str(out / file))}: file too large: {room}$", said[-1])
    # No half file has its name, and the same command goes on where there is room.
    assert not (out / file).is_file()
    assert ended(words(world, out))[0] == 0
