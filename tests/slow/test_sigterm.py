"""SIGTERM in commands that write data: status 143, no partial files, and a rerun completes."""

import os
import signal

from tests.support.shards import encoded
from tests.support.untrained_run import write_run

from prolip.cli import main


def stopping(function, call):
    """The function, during whose n-th call this process gets SIGTERM."""
    calls = iter(range(1, 1000))

    def wrapped(*arguments):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments)

    return wrapped


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stopped_embedding_leaves_no_copy_of_the_images_and_resumes(tmp_path, monkeypatch):
    from prolip.inference import encoder

    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=8)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(6):
        (images / f"{number}.png").write_bytes(encoded((number, 2, 3)))
    words = f"embed --checkpoint {tmp_path}/run --images {images} --device cpu".split()
    words += ["--rows_per_part", "2", "--batch_size", "2", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(encoder, "on_cpu", stopping(encoder.on_cpu, 2))
        assert main([*words, str(tmp_path / "out")]) == 128 + signal.SIGTERM
    found = tree(tmp_path / "out").keys()
    assert "manifest.json" in found < tree(tmp_path / "whole").keys()
    assert main([*words, str(tmp_path / "out")]) == 0
    assert tree(tmp_path / "out").keys() == tree(tmp_path / "whole").keys()
