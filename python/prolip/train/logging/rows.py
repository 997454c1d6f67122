"""The rows of a run: measured on all ranks, written and shown by rank 0."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from torch import Tensor

from prolip.data.device import DeviceBatch
from prolip.distributed import Ranks
from prolip.models import ProLIPOutput
from prolip.train.config import TrainConfig, to_toml
from prolip.train.logging.log import MetricsLog
from prolip.train.logging.meter import Meter
from prolip.train.logging.progress import Progress


class Rows:
    """Measures steps, and writes the rows to the run's logs and progress line. All ranks have one.

    Args:
        config: the run's settings.
        ranks: the processes.
        meter: measures the steps.
        step: steps done before.
        opened: closes the logs at its end.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks, meter: Meter, step: int, opened: ExitStack) -> None:
        self.step = step
        """Step of the last row about training."""
        self.meter = meter
        self._config = config
        self._metrics: MetricsLog | None = None
        if ranks.rank == 0:
            log = MetricsLog(config.out, step, config.log, name=config.name, settings=to_toml(config))
            self._metrics = opened.enter_context(log)
            self._progress = opened.enter_context(Progress(config.total_steps))

    def write(self, step: int, output: ProLIPOutput, grad_norm: Tensor, lr: float) -> dict[str, float]:
        """Write and return the row of the steps since the last one. All ranks call this; see `Meter.row`."""
        row = self.meter.row(step, output, grad_norm, lr)
        self.step = step
        if self._metrics is not None:
            self._metrics.write(row)
            self._progress.show(row)
        return row

    def write_validation(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the metrics of validation sets. The time since the last row was not spent on training."""
        if self._metrics is not None:
            self._metrics.write({"step": step, "samples": step * self._config.batch_size, **figures})
            self._progress.show_validation(step, figures)
        self.meter.pause()

    def show_examples(self, step: int, batch: DeviceBatch, output: ProLIPOutput) -> None:
        """Write examples of a step's batch, if they are due at this step."""
        if self._metrics is not None:
            self._metrics.show_examples(step, batch, output, self._config.data.tokenizer)
