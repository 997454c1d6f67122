"""Every parallel strategy has the loss curve of a single process."""

import json
from pathlib import Path

import pytest
import torch
from tests.slow.programs.curves import Joined, record
from tests.support.ranks import Job

from prolip.distributed import start

STEPS = 16
FLAGS = (
    *("--model.vision.layers", "2", "--model.text.layers", "2", "--batch_size", "12", "--optim.lr", "3e-4"),
    # Every term counts, so that an error in one shows.
    *("--loss.inclusion_weight", "1e-2", "--loss.masked_inclusion_weight", "1e-2", "--loss.inclusion_scale", "10"),
    *("--ema.decay", "0.9", "--ema.every", "3"),
)
FSDP = ("--parallel.strategy", "fsdp")
TERMS = ("total", "ppcl", "inclusion", "masked_image_inclusion", "masked_text_inclusion", "vib")


def of_ranks(lab, processes, cases):
    """What one launch of several processes records of each case; its folder is its name up to a plus."""
    answer = lab.folder / f"answer-{processes}.json"
    words = [(name, lab.words(f"{name.split('+')[0]}-{processes}", *FLAGS, *flags)) for name, flags in cases.items()]
    command = [str(Path(__file__).parent / "programs" / "curves.py"), json.dumps(words), str(STEPS), str(answer)]
    with Job(command, processes=processes, told=lab.folder / "told" / f"curves-{processes}") as job:
        assert job.wait() == [0] * processes, job.told()
    found = json.loads(answer.read_text())
    return found


def alone(lab, monkeypatch, name, num_ranks, *flags):
    """What one process records on the global batches of as many ranks."""
    with monkeypatch.context() as patched:
        patched.setattr(Joined, "num_ranks", num_ranks)
        patched.setattr("prolip.train.loop.BatchLoader", Joined)
        return record(lab.words(name, *FLAGS, *flags), start("cpu"), STEPS)


def flat(state):
    return torch.cat([torch.tensor(state[name], dtype=torch.float64) for name in sorted(state)])


def assert_same(ours, theirs, name):
    """The curve to 1e-5, as is asked of it; a gradient's norm is a difference of larger numbers."""
    for term in TERMS:
        assert len(ours[term]) == STEPS
        assert min(theirs[term]) > 0
        assert ours[term] == pytest.approx(theirs[term], rel=1e-5), (name, term)
    assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4), name
    for state in ("weights", "ema"):
        assert ours[state].keys() == theirs[state].keys()
        assert (flat(ours[state]) - flat(theirs[state])).norm() < 1e-4 * flat(theirs[state]).norm(), (name, state)


def test_two_processes_have_the_loss_curve_of_one_process(lab, monkeypatch):
    cases = {
        "ddp": (),
        "ddp_parts": ("--accumulate", "3"),
        "fsdp": FSDP,
        "fsdp+again": FSDP,
        "parts": (*FSDP, "--accumulate", "3", "--parallel.recompute_every", "1", "--parallel.reshard", "False"),
        "compiled": (*FSDP, "--parallel.compile", "True", "--parallel.recompute_every", "2"),
        "gathered": (*FSDP, "--precision", "bf16", "--parallel.gather", "fp32"),
        "fp16": (*FSDP, "--precision", "fp16"),
        "fp16+again": (*FSDP, "--precision", "fp16"),
    }
    found = of_ranks(lab, 2, cases)
    one = alone(lab, monkeypatch, "one-of-two", 2)
    assert min(one["grad_norm"]) > 1  # so that clipping counts
    for name in ("ddp", "ddp_parts", "fsdp", "parts", "compiled"):
        assert_same(found[name], one, name)
    # All but the factor and the bias of similarities, which have no dimension.
    assert found["ddp"]["sharded"] == 0
    assert found["fsdp"]["sharded"] == len(one["weights"]) - 2
    # From a checkpoint of shards it goes on with the same bits: weights, moments, averages, fp16's factor.
    for name in ("fsdp", "fp16"):
        whole, again = found[name], found[f"{name}+again"]
        for term in (*TERMS, "grad_norm", "scale"):
            assert again[term] == whole[term][STEPS // 2 :], (name, term)
        assert again["weights"] == whole["weights"]
        assert again["ema"] == whole["ema"]

    # Blocks are gathered in the low type, the heads are not. The factor falls until gradients fit into it, on both
    # ranks at once; the steps that were skipped made no step.
    low = found["fp16"]
    assert set(low["dtypes"].values()) == {"torch.float16", "torch.float32"}
    for name in ("fsdp", "gathered"):
        assert set(found[name]["dtypes"].values()) == {"torch.float32"}
    assert found["gathered"]["total"] == pytest.approx(one["total"], rel=5e-2)
    skipped = sum(norm == 0 for norm in low["grad_norm"])
    assert 0 < skipped < STEPS // 2
    assert low["scale"][-1] == 2.0 ** (18 - skipped)
    by_hand = alone(lab, monkeypatch, "low", 2, "--precision", "fp16")
    assert low["total"] == pytest.approx(by_hand["total"], rel=1e-2)


def test_a_sharded_run_with_a_frozen_tower_is_evaluated_like_an_unsharded_one(watched):
    """No gradient reaches the image tower, so FSDP leaves its tensors gathered after the forward pass."""
    control = ("contrast", "siglip"), ("vib_weight", "0"), ("inclusion_weight", "0"), ("masked_inclusion_weight", "0")
    flags = [word for name, value in control for word in (f"--loss.{name}", value)]
    flags += ["--model.vision.embed_unc", "False", "--model.text.embed_unc", "False", "--lock.image", "True"]
    measured = []
    for strategy in ("ddp", "fsdp"):
        name = f"frozen-{strategy}"
        watched.launch(name, "--samples_seen", "32", *flags, "--parallel.strategy", strategy, processes=2)
        found = {key: value for row in watched.rows(name) for key, value in row.items() if key.startswith("val/pairs/")}
        measured.append({key: value for key, value in found.items() if not key.endswith("seconds")})
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)
    assert measured[0]
