"""Probabilistic language-image pre-training: Gaussian embeddings of images and captions (arXiv:2410.18857).

`prolip.load` loads a model. Import everything else from its room: `prolip.data`, `prolip.models`,
`prolip.losses`, `prolip.gaussian`, `prolip.eval`. `import prolip` imports neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from prolip.models import ModelConfig, ProLIP
    from prolip.models.config import Resize

__all__ = ["load"]


def load(source: str | Path, *, config: ModelConfig | None = None, resize: Resize = "off") -> ProLIP:
    """Load a model for inference; see `prolip.pretrained.load` for the sources."""
    from prolip.pretrained.sources import load as load_weights

    return load_weights(source, config=config, resize=resize)
