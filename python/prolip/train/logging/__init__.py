"""Logging of a run: rows of metrics, where they are written, and a line of progress."""

from prolip.train.logging.log import MetricsLog, Progress
from prolip.train.logging.meter import Meter, seconds_at_peak

__all__ = ["Meter", "MetricsLog", "Progress", "seconds_at_peak"]
