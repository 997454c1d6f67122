"""`prolip embed` with two processes writes the same bytes as with one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tests.support.ranks import Job
from tests.support.shards import members, write_tar
from tests.support.untrained_run import write_run

from prolip.cli import main

SIZES = (5, 0, 3, 7)


def test_two_processes_write_the_parts_of_one_process(tmp_path: Path) -> None:
    write_run(tmp_path / "run", tmp_path / "tokenizer.json", context_length=8)
    for shard, size in enumerate(SIZES):
        samples = [entry for number in range(size) for entry in members(f"k{number}", (number * 30, shard * 80, 9))]
        write_tar(tmp_path / f"{shard}.tar", samples or [("readme", b"no sample")])
    (tmp_path / "lines.txt").write_text("\n".join(f"a picture of {number}" for number in range(10)))
    data, lines = str(tmp_path / "{0..3}.tar"), str(tmp_path / "lines.txt")
    words = ["embed", "--checkpoint", str(tmp_path / "run"), "--shards", data, "--lines", lines, "--what", "both"]
    words += ["--batch_size", "4", "--rows_per_part", "4", "--device", "cpu", "--threads", "1"]
    # As many threads as each of the two has: sums of another number of threads differ in their last bits.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    torch.set_num_threads(threads)

    command = ["-m", "prolip.cli", *words, "--out", str(tmp_path / "two")]
    with Job(command, processes=2, told=tmp_path / "told") as job:
        assert job.wait(120) == [0, 0], job.told()
    assert "parts: 7 (7 new)" in job.told()
    assert "by 2 process(es)" in job.told()
    assert job.told().count("parts: 7") == 1, "one process speaks"
    one, two = (read(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert len(one) == 4 + 7 + 1


def read(folder: Path) -> dict[str, object]:
    """The bytes of every file; of the manifest, what does not depend on the clock."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.pop("run")["samples"] == 25
    return found | {"manifest.json": manifest}
