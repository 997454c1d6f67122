"""`prolip report RUN`: write the page of a run."""

from __future__ import annotations

from prolip.cli.command import parse, write_lines
from prolip.train.config.options import ReportOptions


def run(prog: str, arguments: list[str]) -> int:
    """Write report.html and print its path."""
    options = parse(ReportOptions, prog, arguments)
    from prolip.train.report import write_report

    page = write_report(options.run)
    write_lines([f"wrote {page}; next: open {page.resolve()} in a browser"])
    return 0
