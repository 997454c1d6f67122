"""The report of a demo run, one HTML page: numbers, curves, images, and what was not found."""

from prolip.demo.report.render import render_report

__all__ = ["render_report"]
