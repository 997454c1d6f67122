"""The card and the versions, and the shards for the other parts."""

import os
import platform
import time
from importlib.metadata import version

import torch
from tests.gpu.inputs import write_inputs


def machine(job):
    name = torch.cuda.get_device_name() if job.on_gpu else f"CPU ({platform.machine()})"
    job.figure("device", name)
    job.figure("cores", len(os.sched_getaffinity(0)))
    ours = version("prolip")
    job.figure("versions", f"prolip {ours}, torch {torch.__version__}, Python {platform.python_version()}")
    if job.on_gpu:
        memory = torch.cuda.get_device_properties(0).total_memory
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        job.figure("GPU", f"{memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}, NCCL {nccl}")
    started = time.perf_counter()
    size = write_inputs(job)
    job.figure("made images", size / 1000, "kB", f"written in {time.perf_counter() - started:.1f} s")
