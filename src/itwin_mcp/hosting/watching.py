"""What is measured of a hosted server, and where: calls, requests upstream, refusals. Nothing per caller."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from opentelemetry import trace

from itwin_mcp.upstream.watching import Answered, Watch

UNKNOWN = "unknown"
_tracer = trace.get_tracer("itwin-mcp")


class Meter(Protocol):
    """Counts. Every text that it is given is one of few."""

    def token_refused(self, reason: str) -> None:
        """A token was not taken."""

    def limited(self, reason: str) -> None:
        """A request was too much."""

    def called(self, tool: str, outcome: str, seconds: float) -> None:
        """A tool was called."""

    def sent(self, method: str, outcome: str) -> None:
        """A request went upstream; `outcome` is its status, or `failed`."""


class NoMeter:
    """Counts nothing."""

    def token_refused(self, reason: str) -> None:
        """Not counted."""

    def limited(self, reason: str) -> None:
        """Not counted."""

    def called(self, tool: str, outcome: str, seconds: float) -> None:
        """Not counted."""

    def sent(self, method: str, outcome: str) -> None:
        """Not counted."""


def watch_upstream(meter: Meter) -> Watch:
    """A span and a count for each request that goes out; the call's span gets the correlation id as well."""

    @contextmanager
    def watch(method: str, correlation_id: str) -> Iterator[Answered]:
        outcome = "failed"
        trace.get_current_span().set_attribute("itwin.correlation_id", correlation_id)
        with _tracer.start_as_current_span(
            f"upstream {method}", kind=trace.SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attributes({"http.request.method": method, "itwin.correlation_id": correlation_id})

            def answered(status: int) -> None:
                nonlocal outcome
                outcome = str(status)
                span.set_attribute("http.response.status_code", status)
                if status >= 400:
                    span.set_status(trace.StatusCode.ERROR)

            try:
                yield answered
            finally:
                if outcome == "failed":
                    span.set_attribute("error.type", outcome)
                    span.set_status(trace.StatusCode.ERROR)
                meter.sent(method, outcome)

    return watch


def watch_calls(
    meter: Meter, tools: Collection[str], *, clock: Callable[[], float] = time.perf_counter
) -> Callable[[ServerRequestContext[Any], CallNext], Awaitable[HandlerResult]]:
    """A middleware of the SDK that counts calls; a tool that is not served has no name of its own here."""

    async def watch(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        name = (ctx.params or {}).get("name")
        tool = name if isinstance(name, str) and name in tools else UNKNOWN
        outcome, began = "cancelled", clock()
        try:
            result = await call_next(ctx)
            failed = result.get("isError") if isinstance(result, dict) else getattr(result, "is_error", False)
            outcome = "error" if failed else "ok"
            return result
        except MCPError:
            outcome = "protocol-error"
            raise
        finally:
            meter.called(tool, outcome, clock() - began)

    return watch
