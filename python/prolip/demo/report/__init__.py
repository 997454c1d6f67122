"""The page of the demo's run: figures, curves, images, and what they do not show."""

from prolip.demo.report.page import render_report

__all__ = ["render_report"]
