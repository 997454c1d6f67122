"""One self-contained HTML page of a run: figures, curves, pictures, and what they do not show."""

from prolip.eval.report.page import render_report

__all__ = ["render_report"]
