"""Probabilistic language-image pre-training: Gaussian embeddings of images and captions (arXiv:2410.18857).

`prolip.load` opens a model. Import everything else from its own room: `prolip.data`, `prolip.models`, `prolip.losses`,
`prolip.gaussian`, `prolip.eval`. This module imports nothing heavy, so `import prolip` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from prolip.models import ModelConfig, ProLIP
    from prolip.models.config import Resize

__all__ = ["load"]


def load(source: str | Path, *, config: ModelConfig | None = None, resize: Resize = "off") -> ProLIP:
    """Open a model for inference: a run, a checkpoint, a folder, "hf-hub:OWNER/NAME" or "open_clip:NAME/TAG".

    The model is on the CPU, in evaluation mode and in fp32; see `prolip.pretrained.sources.load`.
    """
    from prolip.pretrained.sources import load as load_weights

    return load_weights(source, config=config, resize=resize)
