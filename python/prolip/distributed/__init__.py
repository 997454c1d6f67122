"""The ranks of a job: how they start, wait for each other and end, and the one exchange that the losses need."""

from prolip._core import usable_cores
from prolip.distributed.exchange import Peers
from prolip.distributed.failure import failing_at_once, log_error
from prolip.distributed.ranks import Ranks, agree_on_name, find_device, join, meet, start, stop

__all__ = [
    "Peers",
    "Ranks",
    "agree_on_name",
    "failing_at_once",
    "find_device",
    "join",
    "log_error",
    "meet",
    "start",
    "stop",
    "usable_cores",
]
