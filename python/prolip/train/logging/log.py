"""Write rows of metrics to metrics.jsonl, TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import logging
import math
import tomllib
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from prolip.data.config import TokenizerConfig
from prolip.data.device import DeviceBatch
from prolip.data.tokenizer import Tokenizer
from prolip.files import write_atomic, writing
from prolip.models import ProLIPOutput
from prolip.train.config.parts import LogConfig
from prolip.train.logging.examples import pick_examples, write_examples

log = logging.getLogger(__name__)

# Groups on the pages of TensorBoard and W&B. Names with a slash have a group already; all others are loss terms.
GROUPS = {
    "model": ("image_uncertainty", "text_uncertainty", "logit_scale", "logit_bias"),
    "optim": ("grad_norm", "lr", "loss_scale"),
    "speed": ("samples_per_s", "samples_per_s_per_device", "mfu", "data_wait_share", "gpu_peak_gib"),
}
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names} | {"time_s": "speed", "samples": "speed"}


class MetricsLog:
    """Writes rows of metrics to a run's folder and to the services that the configuration names.

    Args:
        folder: the run's folder.
        resumed_step: steps done before this start. Rows of later steps, and a last line that a crash cut short, are
            dropped, because the run computes them again. (W&B keeps its rows and gets them twice.)
        config: where else to write.
        name: name of the run in W&B.
        settings: the run's configuration as TOML, for W&B.
    """

    def __init__(
        self,
        folder: Path,
        resumed_step: int,
        config: LogConfig,
        *,
        name: str,
        settings: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._config = folder, config
        _drop_later_rows(folder / "metrics.jsonl", resumed_step)
        self._tokenizer: Tokenizer | None = None
        with ExitStack() as opened:
            self._board = None
            if config.tensorboard:
                from torch.utils.tensorboard.writer import SummaryWriter  # slow to import

                self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)
                opened.callback(self._board.close)
            self._wandb = None
            if config.wandb:
                self._wandb = _open_wandb(folder, config, name, settings)
                opened.callback(self._wandb.finish)
            self._opened = opened.pop_all()

    def write(self, row: Mapping[str, float]) -> None:
        """Write one row, which must have `step`. NaN and infinities are null in metrics.jsonl."""
        plain = {name: value if math.isfinite(value) else None for name, value in row.items()}
        line = f"{json.dumps(plain)}\n".encode()
        path = self._folder / "metrics.jsonl"
        # Opened for each row: so a file server shows it, and in a new folder it is a new file. Without a buffer, which
        # would fail again when it is closed.
        with writing(path, len(line)), path.open("ab", buffering=0) as file:
            while line:
                line = line[file.write(line) :]
        grouped = {
            name if "/" in name else f"{_GROUP_OF.get(name, 'loss')}/{name}": value
            for name, value in row.items()
            if name != "step"
        }
        if self._board is not None:
            with writing(self._folder / "tensorboard"):
                for name, value in grouped.items():
                    self._board.add_scalar(name, value, int(row["step"]))
        if self._wandb is not None:
            self._wandb.log({"step": int(row["step"]), **grouped})

    def show_examples(self, step: int, batch: DeviceBatch, output: ProLIPOutput, tokenizer: TokenizerConfig) -> None:
        """Write examples of a step's batch, if they are due at this step."""
        if not self._config.examples_every or step % self._config.examples_every:
            return
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(tokenizer)
        examples = pick_examples(batch, output, self._tokenizer, self._config.num_examples, step)
        with writing(self._folder / "examples"):
            sheet = write_examples(self._folder / "examples", step, examples)
        if self._board is not None:
            self._board.add_image("examples", np.asarray(sheet), step, dataformats="HWC")
            lines = [
                f"{example.why} {example.uncertainty:.4g}: "
                + "; ".join(f"{text} ({value:.4g})" for text, value in example.captions)
                for example in examples
            ]
            self._board.add_text("examples", "\n\n".join(lines), step)
        if self._wandb is not None:
            import wandb

            images = [
                wandb.Image(example.pixels, caption=f"{example.why} {example.uncertainty:.4g}: {example.captions}")
                for example in examples
            ]
            self._wandb.log({"step": step, "examples": images})

    def close(self) -> None:
        """Close all writers."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file; none if it doesn't exist. A line that a crash has damaged is skipped."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: skipped a line that is not valid JSON", path)
    return rows


def _drop_later_rows(path: Path, step: int) -> None:
    """Drop the rows of steps after `step` from a file of rows."""
    kept = [row for row in read_rows(path) if row["step"] <= step]
    write_atomic(path, "".join(f"{json.dumps(row)}\n" for row in kept))


def _open_wandb(folder: Path, config: LogConfig, name: str, settings: str) -> Any:
    """Start a run in W&B, or continue the one that this folder belongs to."""
    import wandb

    id_file = folder / "wandb_run_id"
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    run = wandb.init(
        project=config.wandb_project,
        entity=config.wandb_entity,
        id=id_file.read_text(encoding="utf-8").strip(),
        name=name,
        dir=str(folder),
        config=tomllib.loads(settings),
        resume="allow",
        settings=wandb.Settings(console="off"),
    )
    # Don't use W&B's own counter of calls: a resumed run logs some steps twice.
    run.define_metric("*", step_metric="step")
    return run
