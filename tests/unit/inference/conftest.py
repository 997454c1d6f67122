"""Models and images that several tests open."""

import pytest
from tests.support.datacomp_sets import write_open_clip
from tests.support.images import noise
from tests.support.untrained_run import write_run


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """`run`, `native` and `clip`: models of ours and of open_clip; cat.png; notes.txt."""
    folder = tmp_path_factory.mktemp("lab")
    write_run(folder / "run", folder / "tokenizer.json", context_length=8)
    write_run(folder / "native", folder / "tokenizer.json", context_length=8, image_seq_len=16)
    write_open_clip(folder / "clip")
    noise(1).save(folder / "cat.png")
    (folder / "notes.txt").write_text("no image")
    return folder
