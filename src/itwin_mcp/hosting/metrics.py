"""Prometheus metrics on a port of their own; imported only with the extra `metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from itwin_mcp.hosting.telemetry import Meter

CALL_SECONDS_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics(Meter):
    """The metrics of one server, in a registry of its own."""

    def __init__(self, read_in_progress: Callable[[], float] = lambda: 0) -> None:
        """`read_in_progress` returns how many requests are in progress."""
        self.registry = CollectorRegistry()
        self._calls = Counter("itwin_mcp_calls", "Tool calls.", ("tool", "outcome"), registry=self.registry)
        self._seconds = Histogram(
            "itwin_mcp_call_seconds",
            "Duration of tool calls.",
            ("tool",),
            buckets=CALL_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._requests = Counter(
            "itwin_mcp_upstream_requests", "Requests to the platform.", ("method", "status"), registry=self.registry
        )
        self._limited = Counter(
            "itwin_mcp_limited", "Requests that exceeded a limit.", ("reason",), registry=self.registry
        )
        self._rejected = Counter(
            "itwin_mcp_tokens_refused", "Rejected access tokens.", ("reason",), registry=self.registry
        )
        in_progress = Gauge("itwin_mcp_requests_under_way", "Requests in progress.", registry=self.registry)
        in_progress.set_function(read_in_progress)

    def count_rejected_token(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def count_limited(self, reason: str) -> None:
        self._limited.labels(reason).inc()

    def count_call(self, tool: str, outcome: str, seconds: float) -> None:
        self._calls.labels(tool, outcome).inc()
        self._seconds.labels(tool).observe(seconds)

    def count_request(self, method: str, outcome: str) -> None:
        self._requests.labels(method, outcome).inc()

    @contextmanager
    def serve(self, host: str, port: int) -> Iterator[int]:
        """Serve `/metrics` during the block, and yield the port. Raises OSError if the port is taken."""
        server, thread = start_http_server(port, host, self.registry)
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
