"""Rows of metrics, and where they are written."""

from prolip.train.logging.log import MetricsLog
from prolip.train.logging.meter import Meter, seconds_at_peak

__all__ = ["Meter", "MetricsLog", "seconds_at_peak"]
