"""Logging of a run: rows of metrics, where they are written, and a line of progress."""

from prolip.train.logging.log import MetricsLog
from prolip.train.logging.meter import Meter, Speed
from prolip.train.logging.progress import Progress, format_seconds
from prolip.train.logging.rows import Rows

__all__ = ["Meter", "MetricsLog", "Progress", "Rows", "Speed", "format_seconds"]
