"""The card and the versions, two ceilings of the card, and the shards for the other parts."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version

import torch
from tests.gpu.inputs import write_inputs
from tests.gpu.job import Job

from prolip.train.cost import peak_flops

_SIDE, _REPEATS = 8192, 10


def machine(job: Job) -> None:
    name = torch.cuda.get_device_name() if job.on_gpu else f"CPU ({platform.machine()})"
    job.figure("device", name)
    job.figure("cores", len(os.sched_getaffinity(0)))
    ours = version("prolip")
    job.figure("versions", f"prolip {ours}, torch {torch.__version__}, Python {platform.python_version()}")
    if job.on_gpu:
        memory = torch.cuda.get_device_properties(0).total_memory
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        job.figure("GPU", f"{memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}, NCCL {nccl}")
        peak = peak_flops(name, "bf16")
        product, copy = ceilings()
        job.figure("bf16 matrix product", product, "TFLOP/s", f"peak {peak / 1e12:.0f}" if peak else "card not known")
        job.figure("copy on the device", copy, "TB/s", "bytes read and written")
    else:
        job.not_run("ceilings of the card")
    started = time.perf_counter()
    size = write_inputs(job)
    job.figure("made images", size / 1000, "kB", f"written in {time.perf_counter() - started:.1f} s")


def ceilings() -> tuple[float, float]:
    """TFLOP/s of a large matrix product of random values, and TB/s of a copy."""
    left, right = (torch.randn(_SIDE, _SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = _seconds(lambda: left @ right)
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda").random_(0, 256)
    target = torch.empty_like(source)
    return 2 * _SIDE**3 / seconds / 1e12, 2 * len(source) / _seconds(lambda: target.copy_(source)) / 1e12


def _seconds(work: object) -> float:
    assert callable(work)
    for _ in range(3):
        work()
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    for _ in range(_REPEATS):
        work()
    ended.record()
    torch.cuda.synchronize()
    return begun.elapsed_time(ended) / 1000 / _REPEATS
