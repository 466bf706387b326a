"""Prometheus metrics on a port of their own; imported only with the extra `metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The counts of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter("itwin_mcp_calls", "Tool calls.", ("tool", "outcome"), registry=self.registry)
        self._seconds = Histogram(
            "itwin_mcp_call_seconds", "How long tool calls took.", ("tool",), buckets=SECONDS, registry=self.registry
        )
        self._sent = Counter(
            "itwin_mcp_upstream_requests", "Requests that went out.", ("method", "status"), registry=self.registry
        )
        self._limited = Counter(
            "itwin_mcp_limited", "Requests that were too much.", ("reason",), registry=self.registry
        )
        self._refused = Counter(
            "itwin_mcp_tokens_refused", "Tokens that were not taken.", ("reason",), registry=self.registry
        )
        self._under_way = Gauge("itwin_mcp_requests_under_way", "Requests under way.", registry=self.registry)

    def token_refused(self, reason: str) -> None:
        """A token was not taken."""
        self._refused.labels(reason).inc()

    def limited(self, reason: str) -> None:
        """A request was too much."""
        self._limited.labels(reason).inc()

    def called(self, tool: str, outcome: str, seconds: float) -> None:
        """A tool was called."""
        self._calls.labels(tool, outcome).inc()
        self._seconds.labels(tool).observe(seconds)

    def sent(self, method: str, outcome: str) -> None:
        """A request went upstream."""
        self._sent.labels(method, outcome).inc()

    def watch_under_way(self, count: Callable[[], float]) -> None:
        """Where to read how many requests are under way."""
        self._under_way.set_function(count)

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """Serve `/metrics` until the end of the block, and give its port. Raises OSError if the port is taken."""
        server, thread = start_http_server(port, host, self.registry)
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
