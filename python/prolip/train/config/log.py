"""Settings of what a run logs, and where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

from prolip.errors import UserError, check_at_least


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where to log a run, besides metrics.jsonl."""

    tensorboard: bool = False
    """Write TensorBoard files to `tensorboard` in the run's folder (`pip install 'prolip[tensorboard]'`)."""
    wandb: bool = False
    """Log to Weights & Biases (`pip install 'prolip[wandb]'`). A resumed run continues its run there. W&B's environment
    variables apply, such as WANDB_API_KEY and WANDB_MODE=offline."""
    wandb_project: str = "prolip"
    """Project in W&B."""
    examples_every: int = 0
    """Steps between two logs of example images and captions with their uncertainty, to `examples` in the run's folder
    and to TensorBoard and W&B; 0 for none."""
    peak_tflops: float | None = None
    """Peak of a device in 10^12 FLOPs per second, for model FLOPs utilisation (`mfu`). None looks it up in a table of
    GPUs; for other devices, such as a CPU, `mfu` is not logged."""

    def __post_init__(self) -> None:
        check_at_least(0, **{"log.examples_every": self.examples_every})
        if self.peak_tflops is not None and not (math.isfinite(self.peak_tflops) and self.peak_tflops > 0):
            raise UserError("log.peak_tflops", "must be finite and positive", self.peak_tflops)

    def check(self) -> None:
        """Check that TensorBoard and W&B are installed if they are used."""
        for name, title in (("tensorboard", "TensorBoard"), ("wandb", "W&B")):
            if getattr(self, name) and find_spec(name) is None:
                raise UserError(f"log.{name}", f"{title} is not installed; pip install 'prolip[{name}]'")
