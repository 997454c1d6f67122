"""How long a checkpoint delays a training step, against the time of the save: `pytest -m bench tests/bench -s`."""

import dataclasses
import statistics
import time

import pytest
import torch
from tests.support.untrained_run import ALONE
from torch import nn

from prolip.checkpoint import Notes, Saver, run_tensors

MAX_SHARE = 0.5
"""What must hold on any machine; the measured share is printed."""
NOTES = Notes(step=0, world_size=1, elapsed_s=0.0, cursor={}, config="", model_config={})


@pytest.mark.bench
def test_a_save_delays_a_step_only_by_the_copy(tmp_path, full):
    # 25 million parameters: 100 MB, and twice as much of the optimiser's.
    model = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(24 if full else 1)])
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    size = sum(tensor.nbytes for tensor in run_tensors(model, optimizer).values())
    waits, wholes = [], []
    with Saver(tmp_path, ALONE, keep=1) as saver:
        for step in range(1, 8 if full else 3):
            begun = time.perf_counter()
            saver.save(dataclasses.replace(NOTES, step=step), run_tensors(model, optimizer))
            waits.append(time.perf_counter() - begun)
            saver.wait()
            wholes.append(time.perf_counter() - begun)
    # The first save also makes the plan and the memory.
    wait, whole = statistics.median(waits[1:]), statistics.median(wholes[1:])
    print(
        f"\n{size / 1e6:.0f} MB: a step waits {1000 * wait:.0f} ms ({1000 * min(waits[1:]):.0f} to "
        f"{1000 * max(waits[1:]):.0f}; the first time {1000 * waits[0]:.0f}) of {1000 * whole:.0f} ms: "
        f"{wait / whole:.1%}"
    )
    assert not full or wait < MAX_SHARE * whole
