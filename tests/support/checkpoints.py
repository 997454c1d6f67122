"""Small checkpoints, and ways to damage their files."""

import dataclasses

import torch
from tests.support.untrained_run import ALONE

from prolip.checkpoint import Best, Notes, Saver, agree_on_checkpoint, checkpoint_path

NOTES = Notes(
    step=7,
    world_size=1,
    elapsed_s=1.1,
    cursor={"epoch": 2, "legs": [{"world_size": 2, "batch_size": 8, "steps": 3}]},
    config='name = "x"\n',
    model_config={"embed_dim": 8, "vision_cfg": {"layers": 1}},
    scaler={"scale": 65536.0},
)


def tensors(step):
    generator = torch.Generator().manual_seed(step)
    return {"model.weight": torch.randn(64, 64, generator=generator), "model.scale": torch.tensor(step / 3)}


def save(folder, *steps, keep=9, best=None):
    """The last of the checkpoints that are saved here."""
    reason = None if best is None else Best(metric="recall", value=best)
    with Saver(folder, ALONE, keep=keep, after=steps[0] - 1) as saver:
        for step in steps:
            saver.save(dataclasses.replace(NOTES, step=step), tensors(step), reason)
    return checkpoint_path(folder, step)


def largest(path):
    return max(path.iterdir(), key=lambda file: file.stat().st_size)


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def begin(folder, resume):
    """The step that a run begins from; None for a new run."""
    found = agree_on_checkpoint(folder, resume, ALONE)
    return None if found is None else found.step
