"""What a run tells of itself: rows of metrics, where they go, a line of progress."""

from prolip.metrics.log import LogConfig, MetricsLog
from prolip.metrics.meter import Meter, Speed
from prolip.metrics.progress import Progress, format_seconds

__all__ = ["LogConfig", "Meter", "MetricsLog", "Progress", "Speed", "format_seconds"]
