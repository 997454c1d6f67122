"""Where rows of metrics go: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard.writer import SummaryWriter

# Groups of TensorBoard's page; what is not named here is a term of the loss.
_GROUPS = {
    "lr": "optim",
    "grad_norm": "optim",
    "logit_scale": "model",
    "logit_bias": "model",
    "image_uncertainty": "model",
    "text_uncertainty": "model",
    "samples_per_s": "speed",
    "data_wait_share": "speed",
    "time_s": "speed",
    "samples": "speed",
}


class MetricsLog:
    """Writes rows of metrics to `metrics.jsonl` and `tensorboard/` of a run's folder, each step once.

    Args:
        folder: the run's folder.
        resumed_step: steps done before this sitting. Rows of later steps, and a last line that a crash cut short, are
            dropped: the run computes them again.
    """

    def __init__(self, folder: Path, resumed_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        kept = [line for line in read_lines(path) if json.loads(line)["step"] <= resumed_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, row: Mapping[str, float]) -> None:
        """Writes one row; it must have `step`."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(f"{_GROUPS.get(name, 'loss')}/{name}", value, int(row["step"]))

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> list[str]:
    """The whole lines of a JSONL file; none when it doesn't exist."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=False) if line.endswith("}")]
