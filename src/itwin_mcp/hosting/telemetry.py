"""Telemetry of a hosted server: OpenTelemetry spans, and counts of calls, requests and refusals.

Nothing is recorded per caller. With the extra `otel`, spans are exported as the `OTEL_*` variables say. `metrics.py`
serves the counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.shared.exceptions import MCPError
from opentelemetry import trace

from itwin_mcp.upstream.client import Answered, Watch

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
MAX_ATTRIBUTE_CHARACTERS = 256
_NAMED_BY_CLIENTS = ("tools/call ", "prompts/get ")
_tracer = trace.get_tracer("itwin-mcp")


class Meter:
    """Metrics sink. The base class counts nothing. Label values must have low cardinality."""

    def count_rejected_token(self, reason: str) -> None:
        """Count a rejected access token."""

    def count_limited(self, reason: str) -> None:
        """Count a request that exceeded a limit."""

    def count_call(self, tool: str, outcome: str, seconds: float) -> None:
        """Count a tool call and its duration."""

    def count_request(self, method: str, outcome: str) -> None:
        """Count a request to the platform. `outcome` is its status, or `failed`."""


def watch_requests(meter: Meter) -> Watch:
    """Return a watch that records a span and a count for each request to the platform.

    The correlation id is also set on the span of the tool call, so that support can find the call.
    """

    @contextmanager
    def watch(method: str, correlation_id: str) -> Iterator[Answered]:
        outcome = "failed"
        trace.get_current_span().set_attribute("itwin.correlation_id", correlation_id)
        with _tracer.start_as_current_span(
            f"upstream {method}", kind=trace.SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attributes({"http.request.method": method, "itwin.correlation_id": correlation_id})

            def note_status(status: int) -> None:
                nonlocal outcome
                outcome = str(status)
                span.set_attribute("http.response.status_code", status)
                if status >= 400:
                    span.set_status(trace.StatusCode.ERROR)

            try:
                yield note_status
            finally:
                if outcome == "failed":
                    span.set_attribute("error.type", outcome)
                    span.set_status(trace.StatusCode.ERROR)
                meter.count_request(method, outcome)

    return watch


def watch_calls(
    meter: Meter, tools: Collection[str], *, clock: Callable[[], float] = time.perf_counter
) -> ServerMiddleware[Any]:
    """Return middleware for the SDK that counts tool calls. Tools that are not served are counted as `unknown`."""

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
            meter.count_call(tool, outcome, clock() - began)

    return watch


@contextmanager
def export_spans(environment: Mapping[str, str], names: Collection[str]) -> Iterator[None]:
    """Export spans during the block if the environment has an endpoint. `names` are our tools and prompts."""
    variable = next((name for name in ENDPOINT_VARIABLES if environment.get(name)), None)
    if variable is None or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("%s is set, but no spans are exported: install itwin-mcp with its extra `otel`", variable)
        yield
        return
    service = environment.get("OTEL_SERVICE_NAME") or "itwin-mcp"
    provider = build_tracer_provider(BatchSpanProcessor(OTLPSpanExporter()), names, service)
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def build_tracer_provider(processor: Any, names: Collection[str], service: str = "itwin-mcp") -> TracerProvider:
    """Return a provider whose spans have only known names and short attributes, whatever clients send."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Span, SpanLimits, SpanProcessor, TracerProvider

    class UnknownNameReplacer(SpanProcessor):
        """Replaces unknown names: the SDK copies the name that a client sends into the span's name."""

        def on_start(self, span: Span, parent_context: Any = None) -> None:
            method = next((prefix for prefix in _NAMED_BY_CLIENTS if span.name.startswith(prefix)), None)
            if method is not None and span.name.removeprefix(method) not in names:
                span.update_name(f"{method}{UNKNOWN}")
                for attribute in ("gen_ai.tool.name", "gen_ai.prompt.name"):
                    if attribute in (span.attributes or {}):
                        span.set_attribute(attribute, UNKNOWN)

    provider = TracerProvider(
        resource=Resource.create({"service.name": service}),
        span_limits=SpanLimits(max_span_attribute_length=MAX_ATTRIBUTE_CHARACTERS),
    )
    provider.add_span_processor(UnknownNameReplacer())
    provider.add_span_processor(processor)
    return provider
