"""`prolip report RUN`: write the report of an evaluated run."""

from __future__ import annotations

from prolip.cli.command import parse, write_lines
from prolip.demo.config import ReportOptions


def run(prog: str, words: list[str]) -> int:
    """Write report.html and print its path."""
    options = parse(ReportOptions, prog, words)
    from prolip.demo.report import render_report

    page = render_report(options.run, options.data)
    write_lines([f"wrote {page}; next: open {page.resolve()} in a browser"])
    return 0
