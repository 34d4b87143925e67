"""Real servers for experiments, each in its own process on a free loopback port until its block ends."""

from scalelab.servers.apps.latency import LatencyServer, ServerStats, latency_server
from scalelab.servers.apps.queueing import QueueServer, QueueStats, WorkServer, WorkStats, queue_server, work_server
from scalelab.servers.external import MissingServer
from scalelab.servers.process import ServiceError
from scalelab.servers.stores import Store, memcached_server, missing, redis_server

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
