"""SIGTERM in commands that write data: status 143, no partial files, and a rerun completes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.shards import encoded
from tests.support.untrained_run import write_run

from prolip.cli import main


def stopping(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The function, during whose n-th call this process gets SIGTERM."""
    calls = iter(range(1, 1000))

    def wrapped(*arguments: object) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments)

    return wrapped


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("before", [False, True])
def test_a_stopped_build_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    from prolip.data.build import images

    source, out = tmp_path / "source" / "food", tmp_path / "built" / "out"
    source.mkdir(parents=True)
    for number in range(6):
        (source / f"{number}.png").write_bytes(encoded((number, 2, 3)))
    words = ["data", "build", "folder", "--images", str(source.parent), "--out", str(out)]
    if before:
        assert main(words) == 0
        (source / "6.png").write_bytes(encoded((6, 2, 3)))
    kept = tree(tmp_path / "built")
    with monkeypatch.context() as patched:
        patched.setattr(images, "read_image", stopping(images.read_image, 3))
        assert main(words) == 128 + signal.SIGTERM
    assert tree(tmp_path / "built") == kept
    assert main(words) == 0
    assert set(tree(tmp_path / "built")) == {"out/train-000000.tar", "out/dataset.json"}
    assert tree(tmp_path / "built") != kept


def test_a_stopped_embedding_leaves_no_copy_of_the_images_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prolip.embeddings import embed_inputs

    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=8)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(6):
        (images / f"{number}.png").write_bytes(encoded((number, 2, 3)))
    words = ["embed", "--checkpoint", str(tmp_path / "run"), "--images", str(images), "--device", "cpu"]
    words += ["--rows_per_part", "2", "--batch_size", "2", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(embed_inputs, "on_cpu", stopping(embed_inputs.on_cpu, 2))
        assert main([*words, str(tmp_path / "out")]) == 128 + signal.SIGTERM
    assert tree(tmp_path / "out").keys() == {"manifest.json", "image-000000.parquet"}
    assert main([*words, str(tmp_path / "out")]) == 0
    assert tree(tmp_path / "out").keys() == tree(tmp_path / "whole").keys()
