"""What a run tells of itself: rows of metrics, where they go, a line of progress."""

from prolip.metrics.log import MetricsLog
from prolip.metrics.meter import Meter
from prolip.metrics.progress import Progress, format_seconds

__all__ = ["Meter", "MetricsLog", "Progress", "format_seconds"]
