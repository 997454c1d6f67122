"""Write rows of metrics to metrics.jsonl, TensorBoard, Weights & Biases and a progress bar."""

from __future__ import annotations

import json
import logging
import math
import sys
import tomllib
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from prolip.data.device import DeviceBatch
from prolip.data.tokenizer import Tokenizer
from prolip.models import ProLIPOutput
from prolip.store.atomic_writes import write_atomic
from prolip.store.disk_full import writing
from prolip.train.config import TrainConfig, to_toml
from prolip.train.logging.examples import pick_examples, write_examples

log = logging.getLogger(__name__)

GROUPS = {
    "model": ("image_uncertainty", "text_uncertainty", "logit_scale", "logit_bias"),
    "optim": ("grad_norm", "lr", "loss_scale"),
    "speed": ("samples_per_s", "samples_per_s_per_device", "mfu", "data_wait_share", "gpu_peak_gib"),
}
"""On the pages of TensorBoard and W&B. Names with a slash have a group already; all others are loss terms."""
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names} | {"time_s": "speed", "samples": "speed"}
_NUM_EXAMPLES = 6
"""Of each kind: most certain, least certain, random."""


class MetricsLog:
    """Writes rows of metrics to a run's folder, to the services that its configuration names, and to the terminal.

    Rows after `resumed_step` are dropped, because the run computes them again. (W&B keeps them and gets them twice.)
    Only the leading rank writes.
    """

    def __init__(self, config: TrainConfig, resumed_step: int, *, leads: bool = True) -> None:
        self._config, self._leads, self._folder = config, leads, config.out
        self._tokenizer: Tokenizer | None = None
        self._board = self._wandb = None
        self._opened = ExitStack()
        if not leads:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._rows = self._folder / "metrics.jsonl"
        kept = [row for row in read_rows(self._rows) if row["step"] <= resumed_step]
        write_atomic(self._rows, "".join(f"{json.dumps(row)}\n" for row in kept))
        with self._opened as opened:
            self._bar = tqdm(
                total=config.total_steps,
                initial=resumed_step,
                bar_format="step {n_fmt}/{total_fmt}, {remaining} left{postfix}",
                mininterval=0,
                file=sys.stderr,
            )
            if config.log.tensorboard:
                from torch.utils.tensorboard.writer import SummaryWriter  # slow to import

                self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=resumed_step + 1)
                opened.callback(self._board.close)
            if config.log.wandb:
                self._wandb = _open_wandb(config)
                opened.callback(self._wandb.finish)
            self._opened = opened.pop_all()

    def write(self, row: Mapping[str, float]) -> None:
        """Write a row about training, with `step`. NaN and infinities are null in metrics.jsonl."""
        if self._leads:
            self._write(row)
            speed = f"{row['samples_per_s']:.0f} samples/s, waiting for data {row['data_wait_share']:.0%}"
            self._bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed}", refresh=False)
            with suppress(OSError):  # a full disk under standard error must not end the run
                self._bar.update(int(row["step"]) - self._bar.n)

    def write_validation(self, step: int, samples: int, metrics: Mapping[str, float]) -> None:
        """Of all validation sets that were due."""
        if self._leads:
            self._write({"step": step, "samples": samples, **metrics})
            first: dict[str, str] = {}
            for name, value in metrics.items():
                first.setdefault(name.rpartition("/")[0], f"{name} {value:.4g}")
            with suppress(OSError):
                tqdm.write(f"evaluated at step {step}: {', '.join(first.values())}", file=sys.stderr)

    def _write(self, row: Mapping[str, float]) -> None:
        plain = {name: value if math.isfinite(value) else None for name, value in row.items()}
        line = f"{json.dumps(plain)}\n".encode()
        # Opened for each row, so that a file server shows it. A buffer would fail again when closed.
        with writing(self._rows, len(line)), self._rows.open("ab", buffering=0) as file:
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

    def show_examples(self, step: int, batch: DeviceBatch, output: ProLIPOutput) -> None:
        """Write examples of a step's batch, if they are due."""
        config = self._config.log
        if not self._leads or not config.examples_every or step % config.examples_every:
            return
        self._tokenizer = self._tokenizer or Tokenizer(self._config.data.tokenizer)
        examples = pick_examples(batch, output, self._tokenizer, _NUM_EXAMPLES, step)
        with writing(self._folder / "examples"):
            sheet = write_examples(self._folder / "examples", step, examples)
        if self._board is not None:
            self._board.add_image("examples", np.asarray(sheet), step, dataformats="HWC")
            self._board.add_text("examples", "\n\n".join(example.label for example in examples), step)
        if self._wandb is not None:
            import wandb

            images = [wandb.Image(example.pixels, caption=example.label) for example in examples]
            self._wandb.log({"step": step, "examples": images})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()
        if self._leads:
            with suppress(OSError):
                self._bar.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """No rows if the file doesn't exist. A line that a crash has damaged is skipped."""
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: skipped a line that is not valid JSON", path)
    return rows


def _open_wandb(config: TrainConfig) -> Any:
    import wandb

    id_file = config.out / "wandb_run_id"
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    run = wandb.init(
        project=config.log.wandb_project,
        id=id_file.read_text(encoding="utf-8").strip(),
        name=config.name,
        dir=str(config.out),
        config=tomllib.loads(to_toml(config)),
        resume="allow",
        settings=wandb.Settings(console="off"),
    )
    # Not W&B's own counter of calls: a resumed run logs some steps twice.
    run.define_metric("*", step_metric="step")
    return run
