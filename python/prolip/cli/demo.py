"""`prolip demo`: from nothing to a report."""

from __future__ import annotations

import logging

from prolip.cli.command import ended_by_sigterm, finish, parse, prepare
from prolip.demo.config import DemoConfig


def run(prog: str, arguments: list[str]) -> int:
    """Build, train, evaluate and report; returns the exit status of the training if that ended it."""
    config = parse(DemoConfig, prog, arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare()
    from prolip.demo.run import run_demo

    with ended_by_sigterm():
        status, lines = run_demo(config)
    report = (config.out / "report.html").resolve()
    then = f"open {report} in a browser, or prolip explore --checkpoint {config.out} --shards {config.data}"
    finish(lines, then, [report])
    return status
