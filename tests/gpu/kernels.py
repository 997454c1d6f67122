"""Which kernels a step spends the device's time on, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable

from tests.gpu.job import Job
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_STEPS, _LARGEST, _NAME = 3, 10, 90


def largest_kernels(job: Job, step: Callable[[], object]) -> None:
    """The ten kernels that take the most time of a step (operators, on a CPU), and its launches."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if job.on_gpu else [])]
    steps = 1 if job.small else _STEPS
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            step()
        job.synchronize()
    rows = [row for row in recorded.key_averages() if not getattr(row, "is_user_annotation", False)]
    kernels = [row for row in rows if row.device_type == DeviceType.CUDA] if job.on_gpu else rows
    microseconds = [row.self_device_time_total if job.on_gpu else row.self_cpu_time_total for row in kernels]
    whole = sum(microseconds)
    job.figure("kernels of a step" if job.on_gpu else "operators of a step", whole / steps / 1000, "ms")
    if job.on_gpu:
        launches = sum(row.count for row in rows if row.key.startswith(("cudaLaunch", "cuLaunch")))
        job.figure("launches of a step", launches / steps)
    else:
        job.not_run("launches of a step")
    largest = sorted(zip(microseconds, kernels, strict=True), key=lambda pair: pair[0], reverse=True)[:_LARGEST]
    for time, row in largest:
        share = f"{time / whole:.1%}, {row.count / steps:.0f} times"
        job.figure(f"`{row.key[:_NAME].replace('`', '')}`", time / steps / 1000, "ms", share)
