"""Whole runs of a small model: the loss curve against the CPU's, a resumed run, embeddings against the CPU's."""

import json

import numpy as np
from tests.gpu.inputs import arguments, pattern, trial

from prolip.checkpoint import checkpoint_path
from prolip.cli import main as prolip
from prolip.embeddings.storage import complete_parts
from prolip.store.folder import Folder
from prolip.train.loop import main as train

_BATCH = 32


def curve(job):
    steps = 50
    ours = losses(job, "device", job.device, steps)
    cpu = losses(job, "cpu", "cpu", steps)
    other = losses(job, "cpu-parts", "cpu", steps, "--accumulate", "2")
    limit = max(10 * distance(other, cpu), 1e-4)
    why = "10 × the CPU's own distance with sums in another order, or what 24 bits may grow to in 50 steps"
    job.check(f"loss of {steps} steps, fp32", distance(ours, cpu), limit, why)
    job.check("last loss, of the first", ours[-1] / ours[0], 0.8, "the model learns")


def resume(job):
    steps, half = 20, 10
    whole = losses(job, "whole", job.device, steps, "--checkpoint_every", str(half), "--keep_checkpoints", "9")
    again = losses(job, "again", job.device, steps)
    saved = checkpoint_path(job.scratch / "runs" / "whole" / "checkpoints", half)
    rest = losses(job, "rest", job.device, steps, "--resume", str(saved))
    job.check("steps after the resumption that are missing", abs(len(rest) - (steps - half)), 0, "the run goes on")
    limit = max(10 * distance(again, whole), 1e-5) if job.on_gpu else 0.0
    why = "10 × the distance of two equal runs; on a CPU both are 0"
    job.check(f"loss of {len(rest)} steps after resumption, fp32", distance(rest, whole[half:]), limit, why)
    if job.on_gpu:
        job.figure("distance of two equal runs", distance(again, whole), "", "some kernels add in no fixed order")
    else:
        job.check("distance of two equal runs", distance(again, whole), 0.0, "equal bit for bit on a CPU")


def losses(job, name, device, steps, *flags):
    """The loss of every step of a run."""
    flags = (*trial(job), "--batch_size", str(_BATCH), "--precision", "fp32", "--log_every", "1", *flags)
    flags += ("--optim.lr", "1e-3", "--samples_seen", str(_BATCH * steps), "--device", device)
    assert train(arguments(job, name, *flags)) == 0
    metrics = job.scratch / "runs" / name / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines)]


def distance(some, others):
    """Largest relative difference of two curves."""
    return max(abs(one - other) / abs(other) for one, other in zip(some, others, strict=True))


def embed(job):
    losses(job, "embedded", job.device, 2)
    exact = embedded(job, "exact", "cpu", "fp32")
    for precision, limit, why in (
        ("fp32", 3e-5, "sums of some hundred products of 24 bits in each layer; TF32 would be 1e-3"),
        ("bf16", 3e-2, "8 bits at each of the products of a tower"),
    ):
        for name, array in embedded(job, precision, job.device, precision).items():
            error = float(np.linalg.norm(array - exact[name]) / np.linalg.norm(exact[name]))
            job.check(f"{name}, {precision}", error, limit, why)


def embedded(job, name, device, precision):
    """What `prolip embed` wrote: means and log variances of images and captions."""
    out = job.scratch / "embedded" / name
    command = f"embed --checkpoint {job.scratch}/runs/embedded --out {out} --what both".split()
    command += ["--log_var", "--dtype", "float32"]
    command += ["--shards", pattern(job), "--device", device, "--precision", precision]
    assert prolip(command) == 0
    found = {}
    for kind in ("image", "text"):
        blocks = [block for part in complete_parts(Folder(str(out)), kind)[1] for block in part.blocks(log_var=True)]
        for field in ("mean", "log_var"):
            found[f"{kind}s: {field}"] = np.concatenate([getattr(block, field) for block in blocks])
    return found
