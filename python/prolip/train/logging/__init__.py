"""Logging of a run: rows of metrics, where they are written, and a line of progress."""

from prolip.train.logging.log import MetricsLog
from prolip.train.logging.meter import Meter, Speed
from prolip.train.logging.progress import Progress, format_seconds

__all__ = ["Meter", "MetricsLog", "Progress", "Speed", "format_seconds"]
