"""Synthetic embeddings of image-text pairs of a frozen model, in memory or in files."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def made_up(count: int, dim: int, *, noise: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and texts of unit norm, [N, D]; the two of a pair are near each other."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, dim, generator=generator)
    image, text = (shared + noise * torch.randn(count, dim, generator=generator) for _ in range(2))
    return F.normalize(image, dim=1), F.normalize(text, dim=1)


def write_npz(path: Path, image: Tensor, text: Tensor, *, compressed: bool = False) -> Path:
    """A file of numpy arrays."""
    save = np.savez_compressed if compressed else np.savez
    save(path, image=image.numpy(), text=text.numpy())
    return path
