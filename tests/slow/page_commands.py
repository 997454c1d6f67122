"""Runs the commands that the pages give, each by its words, in this process where that shows as much as another one.

What is made smaller than the page has it is how long a run is and how large its model: flags behind the page's own,
whose configuration was read as it stands before.
"""

import io
import logging
import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from argparse import ArgumentParser
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, wraps
from importlib.metadata import metadata
from pathlib import Path

import pytest
import tyro
import yaml
from packaging.requirements import Requirement
from tests.support.flags import latest
from tests.support.forked import Forked
from tests.support.ranks import Job
from torch.distributed.run import get_args_parser

from prolip import cli
from prolip.cli.bench import BENCHMARKS
from prolip.cli.data_build import BUILDERS
from prolip.cli.eval import SUITES
from prolip.interop import open_clip as adapter
from prolip.train.config import load_config

ROOT = Path(__file__).resolve().parents[2]
GENTLY = ["--device", "cpu", "--cpu_threads", "1", "--precision", "fp32"]
"""Other tests run beside these, and not every CPU multiplies bf16."""
BRIEFLY = [
    *("--samples_seen", "32", "--batch_size", "16", "--accumulate", "1"),
    *("--optim.warmup_steps", "1", "--log_every", "1"),
]
MINUTELY = [
    *("--model.embed_dim", "32", "--model.vision.image_size", "64", "--model.vision.patch_size", "16"),
    *("--model.vision.layers", "1", "--model.vision.width", "32", "--model.vision.head_width", "16"),
    *("--model.text.width", "32", "--model.text.heads", "2", "--model.text.layers", "1"),
]


def run(words):
    """Runs a command; fails where it fails, or where a word of it is wrong."""
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = words[len(settings) :]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        if words[0].startswith("train/"):
            launcher(words)
        else:
            assert words[0] in PROGRAMS, f"{words[0]} cannot be run here: mark the block"
            PROGRAMS[words[0]](words[1:])


def parse(words):
    """Lets the command's own parser read every word of it, and goes no further."""
    PARSERS[words[0]](words[1:])


# ---- prolip ---------------------------------------------------------------------------------------------------------


CLOSING = re.compile(r"(wrote .+; )?next: .+")
"""The last line of every command."""


def prolip(words):
    if words[0] == "train":
        train(words[1:])
    elif words[0] == "explore":
        explore(*words)
    elif words[0] == "eval" and "--num_resamples" in known_flags()[" ".join(words[:2])]:
        assert cli.main([*words, *([] if "--num_resamples" in words else ["--num_resamples", "20"])]) == 0
    elif words[0] == "adapt" and not {"--method", "--heads.steps"} & set(words):
        assert cli.main([*words, "--heads.steps", "5"]) == 0
    else:
        closed(words)


def closed(words):
    """Runs a command, which ends by saying what it wrote and what to do next; beside JSON on the standard error."""
    out, err, log = io.StringIO(), io.StringIO(), io.StringIO()
    handler, logger = logging.StreamHandler(log), logging.getLogger("prolip.train")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # as the program does, where pytest has not set up logging before
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = cli.main(words)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert status == 0, err.getvalue()
    if not {"-h", "--help", "--version"} & set(words):
        last = [text.getvalue().splitlines()[-1] for text in (out, err, log) if text.getvalue()]
        assert any(map(CLOSING.fullmatch, last)), last


def train(words):
    """Reads the configuration as it stands, then trains by it, shortly and small."""
    if "--dry-run" in words:  # which opens the loader at the recipe's batch: the small set is repeated
        closed(latest(["train", *words, "--data.mode", "resampled", "--data.num_samples", "16384"]))
    else:
        closed(latest(["train", *words, *smaller(load_config(words))]))


@cache  # two pages have the same line, and Gradio takes seconds to start
def explore(*words):
    """Serves the page until it answers, and presses Ctrl-C; in a process of its own, for Gradio leaves loops behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "prolip.cli", *words, "--port", port]
    told = Path("explore.log")
    with told.open("w") as log, Forked(command, stderr=log) as page:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30).close()
                break
            except OSError:
                assert page.poll() is None, told.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        page.send_signal(signal.SIGINT)
        assert page.wait(60) in {0, 130}


def smaller(config):
    """Flags that make a run take seconds, of a size that the models of the page's world have."""
    long, large = config.samples_seen > 1000, config.model.vision.width > 300
    return [*GENTLY, *(BRIEFLY if long else []), *(MINUTELY if large else [])]


class Parsed(BaseException):
    """What a parser was asked for is known."""


def parse_prolip(words):
    if words[0] == "train":
        load_config(words[1:])
    else:
        parsed(lambda: cli.main(words))


def parsed(command):
    """Runs a command until its options are parsed."""
    read = tyro.cli

    def read_and_stop(target, **options):
        read(target if isinstance(target, type) else wraps(target)(lambda *_, **__: None), **options)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tyro, "cli", read_and_stop)
        with pytest.raises(Parsed):
            command()


# ---- python, torchrun and what stands around them -------------------------------------------------------------------


def python(words):
    if words[0] == "-m":
        MODULES[words[1]](words[2:])
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words)
            patch.syspath_prepend((ROOT / words[0]).parent)
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def parse_python(words):
    if "native_aspect" not in words[0]:  # which has no options
        parsed(lambda: python(words))


def torchrun(words):
    """Trains in two processes; test_launchers.py has torchrun start such. All else runs here, as one process.

    open_clip's other processes would know nothing of its small models.
    """
    module, rest = started(words)
    if module != "prolip.train":
        MODULES[module](rest)
        return
    with Job(["-m", module, *rest, *smaller(load_config(rest))], processes=2, told=Path("ranks")) as job:
        assert job.wait(200) == [0, 0], job.told()
        assert "2 process(es)" in job.told()


def started(words):
    """What torchrun is to start, by its own parser: a module and its words, whose batch divides among all processes."""
    options = get_args_parser().parse_args(words)
    assert options.module, "-m is missing"
    if options.training_script == "prolip.train":
        processes = int(options.nproc_per_node) * int(options.nnodes.split(":")[-1])
        load_config(options.training_script_args).loader(processes)
    return options.training_script, options.training_script_args


def open_clip_training(words):
    """open_clip's own command, an epoch of small batches; it sets every logger's level and adds handlers for good."""
    known = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    before = [(logger, logger.level, list(logger.handlers)) for logger in known]
    try:
        assert adapter.main([*words, "--device", "cpu", "--batch-size", "8", "--epochs", "1", "--workers", "1"]) == 0
    finally:
        for logger, level, handlers in before:
            for handler in set(logger.handlers) - set(handlers):
                handler.close()
            logger.handlers = handlers
            logger.setLevel(level)


MODULES = {
    "prolip.train": train,
    "prolip.cli": prolip,
    "prolip.interop.open_clip": open_clip_training,
}


# ---- launchers ------------------------------------------------------------------------------------------------------

STUBS = {
    "torchrun": 'printf "%q " "$@" >> "$STUBS/calls"; echo >> "$STUBS/calls"',
    "prolip": 'torchrun prolip "$@"',
    "ray": 'while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done; "${@:2}"',
    "nvidia-smi": "exit 1",
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'if [ "$2" = hostnames ]; then echo n1; else echo PreemptTime=None; fi',
}
"""What stands on a machine of a cluster; torchrun and prolip note how they were called."""


def launcher(words):
    """Runs a script of train/ as it stands, and then in this process what it has torchrun start."""
    folder = Path("programs").resolve()
    folder.mkdir(exist_ok=True)
    for name, line in STUBS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (folder / name).chmod(0o755)
    calls = folder / "calls"
    calls.unlink(missing_ok=True)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "STUBS": str(folder)}
    subprocess.run(["bash", str(ROOT / words[0]), *words[1:]], env=environment, check=True, timeout=60)
    for called in map(shlex.split, calls.read_text().splitlines()):
        if called[0] == "prolip":
            parse(called)
        else:
            module, rest = started(called)
            MODULES[module](rest)


def sbatch(words):
    """Runs the script as Slurm would on the first machine of the job, or of each task of an array."""
    parser = ArgumentParser(allow_abbrev=False)
    parser.add_argument("--array", default="")
    parser.add_argument("--nodes", default="4")
    script = next(place for place, word in enumerate(words) if not word.startswith("--"))
    options = parser.parse_args(words[:script])
    first, _, last = options.array.partition("-")
    tasks = [str(task) for task in range(int(first), int(last) + 1)] if options.array else [None]
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "64"}
    for task in tasks:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (job | {"SLURM_JOB_NUM_NODES": options.nodes}).items():
                patch.setenv(name, value)
            if task is not None:
                patch.setenv("SLURM_ARRAY_TASK_ID", task)
            launcher(words[script:])


def kubectl(words):
    """Reads the commands of a Ray job, as its shell would."""
    assert words[:2] == ["create", "-f"]
    job = yaml.safe_load((ROOT / words[2]).read_text())
    shell, option, steps = shlex.split(job["spec"]["entrypoint"])
    assert (job["kind"], shell, option) == ("RayJob", "bash", "-euc")
    for step in steps.split(";"):
        parse(shlex.split(step))


# ---- others ---------------------------------------------------------------------------------------------------------


def make(words):
    """Every target is there, and so is what it is made of; a test is no place to make it."""
    folder = Path.cwd() if Path("Makefile").exists() else ROOT
    subprocess.run(["make", "--dry-run", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60)


def pip(words):
    """Every package has the extras that are asked for; nothing is installed."""
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, words[1:]):
        ours = wanted.name == project["name"]
        known = project["optional-dependencies"] if ours else metadata(wanted.name).get_all("Provides-Extra")
        assert wanted.extras <= set(known or []), f"{wanted.name} has no extra {wanted.extras - set(known or [])}"


def git(words):
    subprocess.run(["git", *words], check=True, timeout=60)


def cd(words):
    (folder,) = words
    os.chdir(folder)


PROGRAMS = {
    "prolip": prolip,
    "python": python,
    "torchrun": torchrun,
    "sbatch": sbatch,
    "kubectl": kubectl,
    "make": make,
    "pip": pip,
    "git": git,
    "cd": cd,
}
PARSERS = {"prolip": parse_prolip, "python": parse_python}


# ---- what there is --------------------------------------------------------------------------------------------------


@cache
def known_flags():
    """The flags of every command of prolip by its words, and under "" those of all of them and of the programs beside.

    They are read from the helps, which tell what a user may write.
    """
    names = [name for name in cli.COMMANDS if name not in {"data", "bench", "eval"}]
    names += [
        "calibrate search",
        *(f"data {name}" for name in ("index", "select", "dedupe", "combine", "copy")),
        *(f"bench {benchmark}" for benchmark in BENCHMARKS),
    ]
    names += [*(f"data build {builder}" for builder in BUILDERS), *(f"eval {suite}" for suite in SUITES)]
    found = {name: _flags(cli.main, [*name.split(), "--help"]) for name in names}
    beside = _flags(adapter.main, ["--help"]) | _flags(get_args_parser().parse_args, ["--help"]) | {"--cpus-per-task"}
    return found | {"": set.union(beside, *found.values())}


def _flags(command, words):
    told = io.StringIO()
    with redirect_stdout(told):
        try:
            status = command(words)
        except SystemExit as stop:  # other people's parsers end the process
            status = stop.code
    assert status == 0
    return set(re.findall(FLAG, told.getvalue()))


FLAG = r"(?<![\w-])--[a-zA-Z][\w.-]*"
