"""Real servers for experiments, each in its own process on a free loopback port until its block ends."""

from scalelab.servers.apps.latency import LatencyServer, ServerStats, latency_server
from scalelab.servers.apps.queueing import QueueServer, QueueStats, WorkServer, WorkStats, queue_server, work_server
from scalelab.servers.kinds import KINDS, missing
from scalelab.servers.process import Server, cluster
from scalelab.servers.spec import MissingServer, ServerKind, ServiceError

__all__ = [
    "KINDS",
    "LatencyServer",
    "MissingServer",
    "QueueServer",
    "QueueStats",
    "Server",
    "ServerKind",
    "ServerStats",
    "ServiceError",
    "WorkServer",
    "WorkStats",
    "cluster",
    "latency_server",
    "missing",
    "queue_server",
    "work_server",
]
