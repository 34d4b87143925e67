"""Real servers for experiments: own process, loopback, free port, gone when the block ends."""

from scalelab.services.latency import LatencyServer, ServerStats, latency_server
from scalelab.services.process import ServiceError
from scalelab.services.queueing import QueueServer, QueueStats, WorkServer, WorkStats, queue_server, work_server

__all__ = [
    "LatencyServer",
    "QueueServer",
    "QueueStats",
    "ServerStats",
    "ServiceError",
    "WorkServer",
    "WorkStats",
    "latency_server",
    "queue_server",
    "work_server",
]
