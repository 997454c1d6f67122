"""Gaussians in part files, as `prolip embed` writes them, without a model."""

import numpy as np
import torch
import torch.nn.functional as F

from prolip.embeddings.storage import Manifest, PartNotes, Rows, Settings, write_part
from prolip.gaussian import Gaussian
from prolip.store.folder import Folder


def some_gaussians(rows, dim, *, seed):
    """Gaussians around a few centres. Their variances differ enough to change the order of neighbours."""
    noise = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(max(1, rows // 100), dim))
    mean = centres[noise.integers(0, len(centres), rows)] + noise.normal(size=(rows, dim))
    log_var = np.log(0.1 / dim) + noise.normal(size=(rows, 1)) + 0.3 * noise.normal(size=(rows, dim))
    return Gaussian(F.normalize(torch.from_numpy(mean), dim=-1), torch.from_numpy(log_var))


def write_parts(folder, items, sizes, *, keys="k", dtype="float32"):
    """Writes the Gaussians, or those of each part, as the samples k0, k1, … of shards, of such sizes."""
    folder.mkdir(exist_ok=True)
    count, files = 0, dict[str, int]()
    for number, size in enumerate(sizes):
        here = slice(count, count + size)
        count += size
        names = [f"{keys}{row}" for row in range(here.start, count)]
        for kind, gaussians in items.items():
            some = gaussians(number) if callable(gaussians) else [each[here] for each in gaussians]
            mean, log_var = (each.float().numpy() for each in some)
            rows = Rows(names, np.arange(size, dtype=np.uint32), mean, log_var, np.zeros((size, 2), np.int32))
            notes = PartNotes(number=number, kind=kind, source=f"{number}.tar", stamp="", weights="", rows=size)
            files[write_part(Folder(str(folder)), rows, notes, dtype, log_var=True).name] = size
    Manifest(
        checkpoint="model",
        weights="digest",
        tokenizer=None,
        model={},
        dim=mean.shape[1],
        dtype=dtype,
        logit_scale=10.0,
        logit_bias=None,
        log_var=True,
        settings=Settings(what="both" if len(items) == 2 else kind, caption_key="txt", precision="fp32"),
        plan=[],
        complete=True,
        parts=files,
    ).write(Folder(str(folder)))
    return folder
