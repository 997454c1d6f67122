"""Run a network in evaluation mode, and copy its Gaussians to the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from prolip.gaussian import Gaussian

_PATIENCE_S = 2.0
"""Seconds before a progress bar appears."""


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the training mode is restored at the end.

    Not torch's inference mode, whose tensors cannot be used to train a probe.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def on_cpu(gaussian: Gaussian) -> Gaussian:
    """On the CPU in float32."""
    return Gaussian(gaussian.mean.float().cpu(), gaussian.log_var.float().cpu())


def progress_bar(what: str, total: int | None, progress: bool | None) -> tqdm[Any]:
    """A progress bar on the standard error.

    Args:
        what: what is counted.
        total: None if unknown.
        progress: whether to show it; None shows it on a terminal if the work takes more than two seconds.
    """
    return tqdm(
        total=total,
        desc=what,
        unit=what.removesuffix("s"),
        file=sys.stderr,
        disable=None if progress is None else not progress,
        delay=_PATIENCE_S if progress is None else 0.0,
    )
