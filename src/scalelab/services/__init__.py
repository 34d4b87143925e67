"""Real servers for experiments: own process, loopback, free port, gone when the block ends."""

from scalelab.services.latency import LatencyServer, ServerStats, latency_server
from scalelab.services.process import ServiceError

__all__ = ["LatencyServer", "ServerStats", "ServiceError", "latency_server"]
