"""Synthetic embeddings of image-text pairs of a frozen model, in memory or in folders."""

import numpy as np
import torch
import torch.nn.functional as F

from prolip.embeddings.config import ImportOptions
from prolip.embeddings.import_vectors import run_import


def made_up(count, dim, *, noise=0.5, seed=0):
    """Images and texts of unit norm, [N, D]; the two of a pair are near each other."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, dim, generator=generator)
    image, text = (shared + noise * torch.randn(count, dim, generator=generator) for _ in range(2))
    return F.normalize(image, dim=1), F.normalize(text, dim=1)


def write_pairs(folder, image, text):
    """A folder of embeddings of an unknown model."""
    arrays = folder.with_suffix(".npz")
    np.savez(arrays, image=image.numpy(), text=text.numpy())
    run_import(ImportOptions(image=(arrays,), text=(arrays,), out=str(folder), dtype="float32"))
    return folder
