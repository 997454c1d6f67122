"""Probabilistic language-image pre-training: Gaussian embeddings of pictures and captions (arXiv:2410.18857).

`prolip.load` opens a checkpoint. Import everything else from where it lives: `prolip.data`, `prolip.models`,
`prolip.losses`, `prolip.gaussian`, `prolip.eval`. This module stays light, so that `import prolip` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from prolip.models import ModelConfig, ProLIP
    from prolip.models.config import Resize

__all__ = ["load"]


def load(source: str | Path, *, config: ModelConfig | None = None, resize: Resize = "off") -> ProLIP:
    """The model in a checkpoint, ready for inference; `prolip.models.weights.load` tells what `source` can be."""
    from prolip.pretrained.sources import load as load_weights

    return load_weights(source, config=config, resize=resize)
