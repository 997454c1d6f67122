"""Runs that are killed and restarted, also on another number of processes, end with the same bits."""

import itertools
import json
import os
import re
import signal
from collections import defaultdict
from pathlib import Path

import torch
from tests.support.small_training import RECIPE, SHARDED, VALIDATED, Lab, numbers, same_weights, write_shard

from prolip.checkpoint import load_checkpoint
from prolip.data.config import IndexOptions
from prolip.data.index import run_index

LOGGED = (str(Path(__file__).parent / "programs" / "logged_training.py"),)


def test_two_runs_cannot_share_a_folder_and_a_killed_run_frees_it(lab, finished, monkeypatch):
    monkeypatch.setattr("prolip.store.file_locks.LOCK_SECONDS", 0.5)
    with lab.start("contested", "--checkpoint_every", "4", processes=1) as job:
        job.wait_for(lab.has("contested", "checkpoints/step_*4"))
        job.send(0, signal.SIGSTOP)
        before = lab.rows("contested")
        assert lab.here("contested") == 2
        assert lab.rows("contested") == before
        job.send(0, signal.SIGKILL)
        assert job.wait(60) == [-signal.SIGKILL]
    assert lab.here("contested") == 0
    assert same_weights(lab.latest("contested"), lab.latest(finished))


def test_three_processes_restart_after_a_kill_and_end_with_the_same_bits(lab):
    # With three the order of a sum over the processes matters: two numbers add up the same either way.
    flags = ("--batch_size", "12", "--samples_seen", "288", "--checkpoint_every", "4")
    lab.launch("whole", *flags, processes=3)
    rows = lab.rows("whole")
    losses = numbers(rows, "loss")
    assert losses[-1] < losses[0]
    assert rows[-1]["step"] == 24
    assert all(0 <= share < 1 for share in numbers(rows, "data_wait_share"))

    # "never" holds for the first start: what torchrun starts again goes on.
    with lab.torchrun("elastic", *flags, "--resume", "never", processes=3, restarts=1) as job:
        job.wait_for(lab.has("elastic", "checkpoints/step_*4"))
        os.kill(job.children(0)[1], signal.SIGKILL)
        assert job.wait() == [0], job.told()
    told = job.told()
    began = [int(step) for step in re.findall(r"steps (\d+) to 24,", told)]
    assert len(began) == 2, told
    assert began[0] == 0
    assert 4 <= began[1] <= 24
    assert same_weights(lab.latest("elastic"), lab.latest("whole"))
    assert numbers(lab.rows("elastic"), "step") == numbers(rows, "step")
    assert numbers(lab.rows("elastic"), "loss")[-1] == losses[-1]


def test_a_run_of_two_processes_resumes_with_three_and_repeats_no_sample(lab):
    for shard in range(3):
        write_shard(lab.folder / f"thirds-{shard}.tar", range(24 * shard, 24 * shard + 24))
    flags = ("--data.shards", str(lab.folder / "thirds-{0..2}.tar"), "--batch_size", "12", "--samples_seen", "720")
    flags += ("--checkpoint_every", "1", "--log_every", "4")
    with lab.start("grown", *flags, processes=2, program=LOGGED) as job:
        job.wait_for(lab.has("grown", "checkpoints/step_*8"))
        job.kill()
    begun = lab.latest("grown").step
    assert 8 <= begun < 60
    lab.launch("grown", *flags, processes=3, program=LOGGED)
    assert lab.latest("grown").step == 60
    epochs = [[] for _ in range(10)]
    for file in (lab.folder / "grown").glob("keys-*.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            # What two processes did past their last checkpoint is done again by three.
            if (row["step"] <= begun) == (row["world_size"] == 2):
                epochs[(row["step"] - 1) // 6] += row["keys"]
    assert [sorted(keys) for keys in epochs] == [[f"{number:04d}" for number in range(72)]] * 10


NATIVE = """
extends = ["base.toml", "with-native"]
model.vision.image_seq_len = 6

[data]
shards = ["{folder}/{{0..2}}.tar"]
index = "{folder}/index"

[data.native]
seq_lens = [4, 8]
seq_len_probs = []
token_budget = 64
batch_divisor = 4
"""


def test_a_native_run_resumes_within_an_epoch_on_another_number_of_ranks_with_equal_steps(lab):
    native, shapes = Lab(lab.folder / "native"), [(12, 12), (40, 11), (7, 30)]
    native.folder.mkdir()
    for shard in range(3):
        write_shard(native.folder / f"{shard}.tar", range(25 * shard, 25 * shard + 25), shapes)
    run_index(IndexOptions(shards=(f"{native.folder}/*.tar",), out=native.folder / "index"))
    (native.folder / "base.toml").write_text((RECIPE + VALIDATED).format(folder=lab.folder))
    (native.folder / "recipe.toml").write_text(NATIVE.format(folder=native.folder))
    flags = ("--samples_seen", "240", "--log_every", "1", "--checkpoint_every", "1", "--keep_checkpoints", "99")
    native.launch("whole", *flags, processes=2, program=LOGGED)
    for name, processes in (("again", 2), ("fewer", 1)):
        native.copy("whole", name)
        native.launch(name, *flags, "--resume", "4", processes=processes, program=LOGGED)
    assert same_weights(native.latest("again"), native.latest("whole"))

    samples, again = (numbers(native.rows(name), "samples") for name in ("whole", "fewer"))
    assert samples == again
    assert {after - before for before, after in itertools.pairwise(samples)} == {0, 8, 16}  # 0: of a validation
    taken = defaultdict(list)
    for file in (native.folder / "fewer").glob("keys-*.jsonl"):
        for row in map(json.loads, file.read_text().splitlines()):
            if (row["step"] <= 4) == (row["world_size"] == 2):
                taken[row["step"]] += row["keys"]
    epochs = [[]]
    for _, keys in sorted(taken.items()):
        if {*keys} & {*epochs[-1]}:
            epochs.append([])
        epochs[-1] += keys
    # The last samples, which fill no step, are dropped.
    assert [len(set(epoch)) == len(epoch) > 75 - 16 for epoch in epochs[:-1]] == [True, True]


def test_a_sharded_run_resumes_with_unsharded_models(watched, sharded):
    first = watched.latest(sharded)
    ends = [(first.model(), first.optimizer(), first.average())]
    watched.copy(sharded, "whole")
    watched.launch("whole", *SHARDED, "--parallel.strategy", "ddp", "--resume", "10", processes=2)
    again = watched.latest("whole")
    ends.append((again.model(), again.optimizer(), again.average()))
    assert first.step == again.step == 24
    for ours, theirs in zip(*ends, strict=True):
        assert ours.keys() == theirs.keys() != set()
        for name, tensor in ours.items():
            torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    begun = watched.folder / sharded / "checkpoints" / "step_000000010"
    assert any(not torch.equal(tensor, ends[0][0][name]) for name, tensor in load_checkpoint(begun).model().items())
    # To infer with, the average is taken.
    assert all(torch.equal(again.weights()[name], tensor) for name, tensor in again.average().items())
