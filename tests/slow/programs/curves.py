"""Steps of the small recipe by any number of processes, recorded: what parallelism must not change.

torchrun starts this file with a JSON list of (name, words), the number of steps and the path of the answer, which rank
0 writes. Every case is saved half-way; one that names the folder of an earlier one goes on from there.
"""

import dataclasses
import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from prolip.data import BatchLoader
from prolip.data.device import device_batches
from prolip.distributed import start, stop
from prolip.losses import LossTerms
from prolip.train.config import load_config
from prolip.train.loop import save, set_up, take_step


class Joined:
    """The global batches of several ranks, for one: each reads a part of its own, so what it reads is told by rank.

    The masked rows of all come first, as the loss expects.
    """

    num_ranks = 2
    num_samples = None

    def __init__(self, config, *, rank, world_size, resume):
        assert (rank, world_size) == (0, 1)
        part = dataclasses.replace(config, batch_size=config.batch_size // self.num_ranks)
        self._parts = [
            BatchLoader(part, rank=place, world_size=self.num_ranks, resume=resume) for place in range(self.num_ranks)
        ]

    def translated(self, table):
        for parts in zip(*(part.translated(table) for part in self._parts), strict=True):
            masked = [part.masked_token_ids for part in parts if part.masked_token_ids is not None]
            kept = [part.kept_patches for part in parts if part.kept_patches is not None]
            yield parts[0]._replace(
                images=joined([part.images for part in parts], 0, masked),
                token_ids=joined([part.token_ids for part in parts], 1, masked),
                masked_token_ids=np.concatenate(masked, 1) if masked else None,
                kept_patches=np.concatenate(kept) if kept else None,
                keys=[key for part in parts for key in part.keys],
            )

    def stats(self):
        return self._parts[0].stats()

    def close(self):
        for part in self._parts:
            part.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def joined(arrays, axis, masked):
    """Rows along `axis`, the masked ones of every part before the others."""
    counts = [part.shape[1] for part in masked] or [0] * len(arrays)
    split = [np.split(array, [count], axis) for array, count in zip(arrays, counts, strict=True)]
    return np.concatenate([first for first, _ in split] + [rest for _, rest in split], axis)


def whole(tensor):
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().flatten().tolist()


def record(words, ranks, steps):
    """The loss terms (means over the ranks) and the gradient's norm of each step; weights and averages at the end."""
    with ExitStack() as opened:
        return record_run(set_up(load_config(words), ranks, opened), steps)


def record_run(run, steps):
    ranks = run.ranks
    if run.scaler is not None and run.step == 0:
        run.scaler.scale.fill_(2.0**18)  # so that the first steps overflow
    rows, scales, dtypes = [], [], {}
    for name in () if run.config.parallel.compile else ("visual.transformer.resblocks.0.mlp.c_fc", "visual.ln_post"):
        layer = run.model.get_submodule(name)
        layer.register_forward_hook(
            partial(lambda name, layer, *_: dtypes.update({name: str(layer.weight.dtype)}), name)
        )
    with run.loader, run.saver:
        for _, batch in zip(range(run.step, steps), device_batches(run.loader, ranks.device), strict=False):
            terms, _, norm = take_step(run, batch)
            values = torch.stack(terms).detach()
            if ranks.world_size > 1:
                dist.all_reduce(values)
                values /= ranks.world_size
            rows.append([*values.tolist(), norm.item()])
            scales.append(0.0 if run.scaler is None else run.scaler.scale.item())
            if run.step == steps // 2:
                save(run, batch.cursor)
    found = dict(zip([*LossTerms._fields, "grad_norm"], map(list, zip(*rows, strict=True)), strict=True))
    found |= {"scale": scales, "dtypes": dtypes}
    found["weights"] = {name: whole(parameter) for name, parameter in run.model.named_parameters()}
    found["sharded"] = sum(isinstance(parameter, DTensor) for parameter in run.model.parameters())
    if run.ema is not None:
        found["ema"] = {name: whole(tensor) for name, tensor in run.ema.state_dict().items()}
    return found


def main(cases, steps, answer):
    ranks = start("cpu")
    # Without a compiler of the machine's language; what is traced and cut into graphs is the same.
    torch.compile = partial(torch.compile, backend="aot_eager")
    try:
        found = {name: record(words, ranks, int(steps)) for name, words in json.loads(cases)}
        if ranks.rank == 0:
            Path(answer).write_text(json.dumps(found))
    finally:
        stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
