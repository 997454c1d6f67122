"""`prolip demo`: build the shards, train, evaluate and write the report. Finished stages are skipped."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from prolip.build.emoji.art import DESIGNS
from prolip.build.emoji.build import build_emoji
from prolip.build.emoji.config import EmojiConfig, SuitesConfig
from prolip.build.emoji.suite_datasets import build_suites
from prolip.calibration.config import CALIBRATION_FILE
from prolip.checkpoint import checkpoint_path
from prolip.demo.config import DemoConfig, EmojiOptions
from prolip.demo.suite import run_emoji
from prolip.distributed import find_device, usable_cores
from prolip.evaluation.calibrate import run_calibrate, run_calibration
from prolip.evaluation.config import CalibrateOptions, CalibrationOptions, UncertaintyOptions, ZeroShotOptions
from prolip.evaluation.evaluate import run_suite
from prolip.evaluation.uncertainty import run_uncertainty
from prolip.evaluation.zero_shot import run_zero_shot
from prolip.models.precision import bf16_is_faster
from prolip.store.atomic_writes import check_writable
from prolip.train.config import load_config
from prolip.train.report import write_report

log = logging.getLogger("prolip.demo")

RESULTS = Path("evals/emoji/results.json")


def run_demo(config: DemoConfig) -> tuple[int, list[str]]:
    """Run every stage that is not done yet; returns the exit status and the lines to print.

    The status is 0 if the report is written, 1 if the training failed, and 128 plus its number if a signal ended the
    training (130 for Ctrl-C).
    """
    check_writable(config.out / "report.html")  # the data take a minute to build
    arguments = [config.recipe, "--out", str(config.out), *machine_flags()]
    arguments += [
        "--data.shards",
        f"{config.data}/train-*.tar",
        "--data.tokenizer.path",
        f"{config.data}/tokenizer.json",
    ]
    last = checkpoint_path(config.out / "checkpoints", load_config(arguments).total_steps)
    built = build_emoji(EmojiConfig(), config.data)
    log.info("%s: %d training images", config.data, built.samples["train"])
    if not last.exists():
        status = train(arguments, config.processes or count_processes())
        if status != 0:
            return status, []
    results = config.out / RESULTS
    if not is_newer(results, last) or not (config.out / CALIBRATION_FILE).is_file():
        run_suites(config.out, config.data)
        evaluate(config.out, config.data, results)
    if not is_newer(config.out / "report.html", results):
        write_report(config.out)
    return 0, headline_lines(json.loads(results.read_text(encoding="utf-8")))


def train(arguments: list[str], processes: int) -> int:
    """Under torchrun's agent; returns the status, as `run_demo` does."""
    for module in ("agent.server.api", "multiprocessing.api"):  # they log each signal that they forward
        logging.getLogger(f"torch.distributed.elastic.{module}").setLevel(logging.ERROR)
    try:
        with TemporaryDirectory(prefix="prolip-demo-") as logs:  # torch would make a folder and leave it
            launch = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id=uuid.uuid4().hex,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,
                logs_specs=DefaultLogsSpecs(log_dir=logs),
            )
            elastic_launch(launch, entrypoint=sys.executable)("-m", "prolip.demo.rank", str(os.getpid()), *arguments)
    except SignalException as stopped:
        log.info("\nstopped: run `prolip demo` again to resume at the last step")
        return 128 + int(stopped.sigval)
    except ChildFailedError:
        log.error("training failed: see above")
        return 1
    return 0


def count_processes() -> int:
    """One process per GPU, or up to four on the CPU's cores; a power of two."""
    available = torch.cuda.device_count() or min(4, usable_cores())
    return 1 << (available.bit_length() - 1)


def machine_flags() -> list[str]:
    """Those that adapt the recipe to this machine."""
    return [] if bf16_is_faster(find_device("auto")) else ["--precision", "fp32"]


def run_suites(run: Path, data: Path) -> None:
    """Calibrate a run on validation emoji, unless done, and run general suites on held-out ones."""
    suites = data.with_name(f"{data.name}-suites")
    build_suites(SuitesConfig(data=data), suites)
    if not (run / CALIBRATION_FILE).is_file():
        run_calibrate(CalibrateOptions(checkpoint=str(run), data=str(suites / "wds_emoji-groups-val_test")))
    groups = tuple(f"{suites}/wds_emoji-groups-{design}_test" for design in DESIGNS)

    def out(suite: str) -> Path:
        return run / "evals" / suite

    model = (str(run),)
    run_suite("zero_shot", ZeroShotOptions(checkpoint=model, data=groups, out=out("zero_shot")), run_zero_shot)
    uncertainty = UncertaintyOptions(checkpoint=model, data=groups, caption_key="txt", out=out("uncertainty"))
    run_suite("uncertainty", uncertainty, run_uncertainty)
    calibration = CalibrationOptions(checkpoint=model, data=groups, max_error=0.2, out=out("calibration"))
    run_suite("calibration", calibration, run_calibration)


def evaluate(source: Path, data: Path, results: Path) -> None:
    """Evaluate a run (its newest checkpoint) or a checkpoint on the test split; write `results` and its page."""
    run_suite("emoji", EmojiOptions(checkpoint=(str(source),), data=data, out=results.parent), run_emoji)


def headline_lines(results: Mapping[str, Any]) -> list[str]:
    """From results.json, as a table for the terminal, in percent."""
    (model,) = results["models"]
    headlines = [figure for figure in results["figures"] if figure["main"]]
    width = max(len(headline["id"]["data"]) for headline in headlines)
    lines = [f"{'':{width}}  trained  untrained  chance"]
    for headline in headlines:
        (_, untrained), (name, chance) = headline["baselines"].items()
        shares = f"{headline['value'][model]:7.1%}  {untrained:9.1%}  {chance:6.1%}"
        lines.append(f"{headline['id']['data']:{width}}  {shares}  ({name})")
    return lines


def is_newer(path: Path, than: Path) -> bool:
    """Whether `path` exists and was written after `than`."""
    return path.exists() and path.stat().st_mtime >= than.stat().st_mtime
