"""Real servers for experiments, each in its own process on a free loopback port until its block ends."""

from scalelab.services.external import MissingServer
from scalelab.services.latency import LatencyServer, ServerStats, latency_server
from scalelab.services.process import ServiceError
from scalelab.services.queueing import QueueServer, QueueStats, WorkServer, WorkStats, queue_server, work_server
from scalelab.services.stores import Store, memcached_server, missing, redis_server

__all__ = [
    "LatencyServer",
    "MissingServer",
    "QueueServer",
    "QueueStats",
    "ServerStats",
    "ServiceError",
    "Store",
    "WorkServer",
    "WorkStats",
    "latency_server",
    "memcached_server",
    "missing",
    "queue_server",
    "redis_server",
    "work_server",
]
